"""Sets of examples are read as a whole, reconstructed, and compared with each other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import distance, reconstruction

STORED = Path(__file__).parent / "reference" / "stored_run" / "workdir"


@pytest.fixture
def photos(tmp_path):
    """A folder of twelve gray images in two folders that are named like splits."""
    for i in range(12):
        path = tmp_path / "photos" / ("train" if i % 4 else "test") / f"{i:02d} \u00e9.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * i).save(path)
    return tmp_path / "photos"


def test_all_examples_are_loaded_with_their_names(photos, tmp_path):
    data = tiny.config().data
    x, names = sources.load_all(str(photos), data, argument="input")
    assert names[0] == "test/00 \u00e9.png"
    np.testing.assert_array_equal(x[:, 0, 0, 0], [20 * int(name.split("/")[1][:2]) for name in names])
    np.savez(tmp_path / "a.npz", x[:1])
    one, names = sources.load_all(str(tmp_path / "a.npz"), data, argument="input")
    np.testing.assert_array_equal(one, x[:1])
    assert names == ["0"]
    assert len(sources.load_all("digits", data, argument="input")[0]) == 1797


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FOLDER/none", "input: found nothing at FOLDER/none, expected a folder, a zip file, a .npz file or"),
        ("FOLDER", "input: found no images in FOLDER, expected 1 or more files that end in .png"),
        ("FOLDER/text", "input: found a file that is not a zip file at FOLDER/text"),
        ("FOLDER/a.npz", "input: found examples of shape (9, 9, 1), expected (8, 8, 1), data.shape"),
        ("FOLDER/bad", "input: found 1 of 1 images that cannot be read, the first is a.png: not an image"),
    ],
)
def test_examples_that_cannot_be_used_are_named(name, message, tmp_path):
    if name == "FOLDER/bad":
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "a.png").touch()
    (tmp_path / "text").touch()
    np.savez(tmp_path / "a.npz", np.zeros((3, 9, 9, 1), np.uint8))
    with pytest.raises(ValueError, match="found") as error:
        sources.load_all(name.replace("FOLDER", str(tmp_path)), tiny.config().data, argument="input")
    assert str(error.value).startswith(message.replace("FOLDER", str(tmp_path)))


def test_errors_of_reconstructions_are_those_of_the_written_images():
    model, x = tiny.model(tiny.config()), np.full((5, 8, 8, 1), 200, np.uint8)
    y, errors = reconstruction.of_examples(model, x, seed=0)
    assert y.dtype == np.uint8
    difference = to_float(y, np.float64) - to_float(x, np.float64)
    np.testing.assert_allclose(errors, (difference**2).mean((1, 2, 3)), rtol=0.05)
    assert reconstruction.summary(list("abcde"), np.array([3.0, 1, 2, 5, 4])) == (
        "MSE of 5 examples: mean 3, median 3, least 1 (b), largest 5 (d)"
    )


def test_figure_shows_each_image_above_its_reconstruction():
    x = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    pixels = reconstruction.figure(x, x + 100).axes[0].images[0].get_array()
    np.testing.assert_array_equal(pixels[1::3, 1::3][:2], [range(10), range(100, 110)])
    np.testing.assert_array_equal(pixels[1::3, 1::3][2:, :3], [[10, 11, 255], [110, 111, 255]])


def test_reconstructions_are_written(photos, tmp_path, programs):
    shutil.copytree(STORED, tmp_path / "run")
    copy = "lambda model, x, seed: (x, x.mean((1, 2, 3)))"
    code = f"from dualmcmc_jax.evaluation import reconstruction; reconstruction.of_examples = {copy}"
    flags = (f"--workdir={tmp_path}/run", "--mode=reconstruct", f"--input={photos}")
    done = programs.run(*flags, code=code)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "run" / "reconstructions"
    files = sorted(path.name for path in out.iterdir())
    assert files[0] == "00000_00__.png" or files[0] == "00000_00_\u00e9.png"
    assert files[-2:] == ["mse.json", "reconstructions.png"]
    assert json.loads((out / "mse.json").read_text())["train/11 \u00e9.png"] == 220
    assert np.asarray(Image.open(out / files[11])).tolist() == [[220] * 8] * 8
    assert "MSE of 12 examples: mean 110, median 110, least 0 (test/00" in done.stdout
    done = programs.run(*flags, f"--out={photos}", code=code)
    assert done.stderr.strip().endswith(f"--out: found {photos}, the folder of --input, expected another folder")


def test_distance_of_shifted_sets_is_the_squared_shift():
    config = tiny.config(data__shape=(2,))
    x = np.random.RandomState(0).normal(size=(40, 2)).astype(np.float32)
    features, metrics = distance.measure(config, x + np.float32(3), x, None)
    assert features == "data vectors (2 numbers for each example)"
    assert metrics["Frechet distance"] == pytest.approx(18, rel=1e-4)
    with pytest.raises(ValueError, match=r"^reference: found 5 examples, expected 6 or more"):
        distance.measure(config, x, x[:5], None)


def test_distance_needs_no_run(photos, tmp_path, programs):
    flags = ("--config=digits", "--mode=distance", f"--input={photos}", f"--reference={photos}")
    done = programs.run(*flags, f"--workdir={tmp_path}/runs")
    assert done.returncode == 0, done.stderr
    first, frechet, *_ = done.stdout.splitlines()
    assert first.endswith(f"12 examples of {photos}, of shape (8, 8, 1), by pixel PCA (64 numbers for each example)")
    assert abs(float(frechet.split()[-1])) < 1e-6
    assert not (tmp_path / "runs").exists()
