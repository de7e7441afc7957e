"""Images of many formats, from folders, zips, npz files and TensorFlow Datasets."""

import io
import os
import shutil
import zipfile

import numpy as np
import pytest
import tiny
from PIL import Image

from dualmcmc_jax.data import images, sources

RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data(source, **fields):
    return tiny.config(
        data__source=source, **{"data__shape": (8, 8, 3)} | {f"data__{k}": v for k, v in fields.items()}
    ).data


def decode(image, shape=(8, 8, 3), crop=(), kind="PNG", **options):
    return images.decode(encoded(image, kind, **options), shape, crop)


def left_red(mode="RGB", size=(8, 8)):
    """Return a white image with a red left half."""
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image.convert(mode)


def test_color_modes_are_decoded_as_in_an_image_viewer():
    expected = np.asarray(left_red())
    for mode in ("RGB", "P", "RGBA"):
        np.testing.assert_array_equal(decode(left_red(mode)), expected, err_msg=mode)
    np.testing.assert_allclose(decode(left_red("CMYK"), kind="JPEG", quality=100, subsampling=0), expected, atol=6)
    gray = np.asarray(left_red("L"))
    np.testing.assert_array_equal(decode(left_red(), (8, 8, 1))[..., 0], gray)
    for mode in ("L", "LA"):
        np.testing.assert_array_equal(decode(left_red(mode)), np.stack([gray] * 3, -1), err_msg=mode)
    np.testing.assert_array_equal(decode(Image.new("1", (8, 8), 1)), 255)


def test_transparent_pixels_become_white():
    image = left_red("RGBA")
    image.putalpha(0)
    np.testing.assert_array_equal(decode(image), 255)
    palette = left_red("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    np.testing.assert_array_equal(decode(palette, transparency=palette.getpixel((0, 0))), 255)


def test_sixteen_bit_pixels_are_scaled_to_eight_bits():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    actual = decode(Image.fromarray(values), (8, 8, 1))[..., 0]
    np.testing.assert_array_equal(actual, np.round(values / 257).astype(np.uint8))


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    actual = decode(left_red(), kind="JPEG", quality=100, subsampling=0, exif=exif)
    np.testing.assert_allclose(actual, np.asarray(left_red())[:, ::-1], atol=6)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_first_frame_of_an_animation_is_used(kind, options):
    frames = [Image.new("RGB", (8, 8))]
    actual = decode(left_red(), kind=kind, save_all=True, append_images=frames, **options)
    np.testing.assert_array_equal(actual, np.asarray(left_red()))


def test_images_are_cropped_then_centered_then_resized():
    """The pixels of column i have the value i, so the values identify the columns that remain."""
    columns = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (16, 1)))
    np.testing.assert_array_equal(decode(columns, (16, 16, 1))[0, :, 0], np.arange(12, 28))
    np.testing.assert_array_equal(decode(columns, (8, 8, 1), (4, 0, 12, 8))[0, :, 0], np.arange(4, 12))
    np.testing.assert_allclose(decode(columns, (8, 8, 1))[0, 1:-1, 0], np.arange(12.5, 28, 2)[1:-1], atol=1)


def folder_of(path, names, size=(8, 8)):
    """Write images to a folder. Image i has the color (i, 0, 0)."""
    for i, name in enumerate(names):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i, 0, 0)).save(file)
    return path


def reds(x):
    """Return the red value of each image's first pixel."""
    return x[:, 0, 0, 0].tolist()


def test_folders_and_zips_with_and_without_splits_are_read(tmp_path):
    flat = folder_of(tmp_path / "flat", [f"{i:02d}.png" for i in range(20)])
    (flat / "notes.txt").write_text("no image")
    (flat / ".hidden.png").write_bytes(b"")
    dataset = sources.load(data(f"images:{flat}"))
    assert reds(dataset.test) == [9, 19]
    assert reds(dataset.train) == [i for i in range(20) if i % 10 != 9]
    assert isinstance(dataset.train, np.memmap)

    names = ["train/a/0.PNG", "train/b/1.png", "test/a/2.png"]
    split = folder_of(tmp_path / "split", names)
    dataset = sources.load(data(f"images:{split}"))
    assert (reds(dataset.train), reds(dataset.test)) == ([0, 1], [2])

    with zipfile.ZipFile(tmp_path / "split.zip", "w") as archive:
        for name in names:
            archive.write(split / name, name)
        archive.writestr("__MACOSX/train/._0.png", b"")
    dataset = sources.load(data(f"images:{tmp_path / 'split.zip'}"))
    assert (reds(dataset.train), reds(dataset.test)) == ([0, 1], [2])


def test_images_are_decoded_once(tmp_path, cache, monkeypatch):
    folder = folder_of(tmp_path / "images", ["0.png", "1.png", "2.png"])
    first = sources.load(data(f"images:{folder}"))
    calls = []
    real = images.decode
    monkeypatch.setattr(images, "decode", lambda *args: calls.append(1) or real(*args))
    second = sources.load(data(f"images:{folder}"))
    np.testing.assert_array_equal(first.train, second.train)
    assert not calls
    folder_of(folder, ["0.png", "1.png", "2.png", "3.png"], (9, 9))  # the images change
    assert len(sources.load(data(f"images:{folder}")).train) == 3
    assert len(calls) == 4
    sources.load(data(f"images:{folder}", shape=(16, 16, 3)))
    assert len(calls) == 8
    assert {path.name[0] for path in (cache / "dualmcmc_jax" / "data").iterdir()} != {"."}


def test_bad_images_are_named_and_counted(tmp_path, cache, caplog):
    folder = folder_of(tmp_path / "images", [f"{i}.png" for i in range(6)])
    whole = encoded(left_red(size=(64, 64)), "JPEG")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"found 2 of 8 images that cannot be read, the first is cut.jpg: .*runcated"):
        sources.load(data(f"images:{folder}"))
    assert not list((cache / "dualmcmc_jax" / "data").iterdir())
    dataset = sources.load(data(f"images:{folder}", skip_bad=True))
    assert sorted(reds(dataset.train) + reds(dataset.test)) == list(range(6))
    assert "left out 2 of 8 images" in caplog.text


def test_npz_files_are_read(tmp_path):
    pixels = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8)
    np.savez(tmp_path / "one.npz", pixels)
    dataset = sources.load(data(f"npz:{tmp_path / 'one.npz'}", shape=(8, 8, 1)))
    np.testing.assert_array_equal(dataset.test[..., 0], pixels[[9, 19]])
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    np.savez_compressed(tmp_path / "two.npz", train=vectors[:3], test=vectors[3:])
    dataset = sources.load(data(f"npz:{tmp_path / 'two.npz'}", shape=(3,)))
    np.testing.assert_array_equal(dataset.train, vectors[:3].astype(np.float32))
    assert dataset.test.dtype == np.float32


def test_mocked_tfds_data_sets_are_read():
    """The mocked data sets have their real shapes and random pixels."""
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=5):
        assert sources.load(data("tfds:cifar10", shape=(32, 32, 3))).train.shape == (5, 32, 32, 3)
        celeba = sources.load(data("tfds:celeb_a", shape=(64, 64, 3), crop=(15, 40, 163, 188)))
        assert celeba.train.shape == (5, 64, 64, 3)
        assert sources.load(data("tfds:mnist", shape=(32, 32, 1))).test.shape == (5, 32, 32, 1)


def test_tfds_data_set_is_prepared_and_cached(tmp_path, monkeypatch):
    """A data set is prepared as array_record. Its decoded images stay in the cache. A TFRECORD copy is refused."""
    pytest.importorskip("tensorflow")
    import tensorflow_datasets as tfds

    class Reds(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 3))})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples(0, 6), "validation": self._generate_examples(6, 9)}

        def _generate_examples(self, start, stop):
            for i in range(start, stop):
                yield i, {"image": np.full((10, 8, 3), i, np.uint8)}

    folder = tmp_path / "tfds"
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
    dataset = sources.load(data("tfds:reds"))
    assert sorted(reds(dataset.train)) == [0, 1, 2, 3, 4, 5]
    assert sorted(reds(dataset.test)) == [6, 7, 8]
    shutil.rmtree(folder)
    np.testing.assert_array_equal(sources.load(data("tfds:reds")).train, dataset.train)

    tfds.builder("reds", data_dir=str(folder)).download_and_prepare()
    with pytest.raises(ValueError, match=r"has another format, expected array_record: convert"):
        sources.load(data("tfds:reds", shape=(16, 16, 3)))


def test_old_temporary_folders_of_the_cache_are_removed(tmp_path, cache):
    """Killed processes leave such folders. A path that no longer exists, here a dead link, is ignored."""
    data_folder = cache / "dualmcmc_jax" / "data"
    (data_folder / ".old").mkdir(parents=True)
    (data_folder / ".new").mkdir()
    (data_folder / ".gone").symlink_to("nothing")
    os.utime(data_folder / ".old", (0, 0))
    sources.load(data(f"images:{folder_of(tmp_path / 'images', ['0.png', '1.png'])}"))
    assert {path.name for path in data_folder.glob(".*")} == {".new", ".gone"}
