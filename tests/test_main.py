"""The program trains, samples and evaluates when it is started from the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import inception_oracle
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pth
import pytest
import tiny
from PIL import Image

import dualmcmc_jax
from dualmcmc_jax.configs import digits
from dualmcmc_jax.data import batches, sources
from dualmcmc_jax.evaluation import suite

ROOT = Path(__file__).parents[1]
TINY = [
    "--config.train.num_steps=4",
    "--config.train.batch_size=20",
    "--config.train.unroll=1",
    "--config.energy.widths=(8,)",
    "--config.generator.widths=(8,)",
    "--config.encoder.widths=(8,)",
    "--config.log.every=2",
    "--config.checkpoint.every=2",
    "--config.log.images_every=2",
    "--config.evaluation.every=4",
    "--config.evaluation.light_samples=20",
]


@pytest.fixture(scope="module")
def run(programs):
    """Return a function that runs the program with a config and flags."""
    return lambda *flags, config="digits", **settings: programs.run(f"--config={config}", *flags, **settings)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The workdir of a run that a separate process trained, with TensorBoard events."""
    workdir = tmp_path_factory.mktemp("main") / "run"
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    command = [sys.executable, "-m", "dualmcmc_jax.main", "--config=configs/digits.py", f"--workdir={workdir}", *TINY]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "4/4" in done.stderr
    assert "step/s" in done.stderr
    assert not re.search(r"^[IW]\d{4} ", done.stderr, re.MULTILINE), done.stderr
    return workdir


def test_training_writes_pictures_and_tensorboard_events(workdir):
    for step in (2, 4):
        for name in ("samples", "x_revision", "z_revision"):
            assert (workdir / "samples" / f"{name}_{step:08d}.png").read_bytes().startswith(b"\x89PNG")
    assert list((workdir / "tensorboard").iterdir())


def test_samples_depend_on_the_seed_only(run, workdir, tmp_path):
    files = []
    for num, seed in ((7, 1), (30, 1), (7, 2)):
        out = tmp_path / f"{num}_{seed}"
        done = run(
            f"--workdir={workdir}", *TINY, "--mode=sample", f"--num_samples={num}", f"--seed={seed}", f"--out={out}"
        )
        assert done.returncode == 0, done.stderr
        assert (out / "samples.png").exists()
        files.append(np.load(out / "samples.npz"))
    few, many, other = files
    for name in ("generator", "revised"):
        assert few[name].shape == (7, 8, 8, 1)
        assert few[name].dtype == np.uint8
        np.testing.assert_array_equal(few[name], many[name][:7])
        assert not np.array_equal(few[name], other[name])
    assert not np.array_equal(many["generator"], many["revised"])


def test_missing_pictures_and_evaluations_are_made_when_a_run_resumes(run, workdir, tmp_path):
    """Without them, as after a kill, the finished run makes them again, and equals the original run."""
    copy = shutil.copytree(workdir, tmp_path / "run")
    picture = copy / "samples" / "z_revision_00000004.png"
    picture.rename(picture.with_name(f".{picture.name}.new"))
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(line for line in lines if "light/" not in line))
    done = run(f"--workdir={copy}", *TINY)
    assert done.returncode == 0, done.stderr
    contents = lambda folder: {path.name: path.read_bytes() for path in folder.iterdir() if path.name != picture.name}
    assert contents(copy / "samples") == contents(workdir / "samples")
    pixels = [plt.imread(folder / "samples" / picture.name) for folder in (copy, workdir)]
    np.testing.assert_allclose(*pixels, atol=10 / 255)  # rounding to 8 bits and colors amplifies rounding errors
    (*rows, last), (*expected_rows, expected) = tiny.rows(copy), tiny.rows(workdir)
    assert rows == expected_rows
    timeless = lambda row: {name: value for name, value in row.items() if "second" not in name}
    assert timeless(last) == pytest.approx(timeless(expected), rel=1e-4)  # the two programs are compiled differently
    done = run(f"--workdir={copy}", *TINY)
    assert "nothing to do" in done.stderr


NO_QUESTIONS = "from dualmcmc_jax.evaluation import suite; suite.QUESTIONS = (); "


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_evaluation_is_written_although_it_cannot_be_printed(run, workdir, tmp_path):
    full = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    flags = [f"--workdir={workdir}", *TINY, *FEW, "--mode=evaluate", f"--out={tmp_path}"]
    done = run(*flags, code=NO_QUESTIONS + full)
    assert done.returncode == 0, done.stderr
    assert "standard output could not be written (No space left on device)" in done.stderr
    assert {"metrics.json", "report.html"} <= {path.name for path in tmp_path.iterdir()}


def test_evaluation_on_changed_data_says_so(run, workdir, tmp_path):
    """The program is ended right after the comparison."""
    copy = shutil.copytree(workdir, tmp_path / "run")
    stored = json.loads((copy / "digests.json").read_text())
    (copy / "digests.json").write_text(json.dumps(stored | {"train": {"examples": 9, "sha256": ""}}))
    end = "from dualmcmc_jax.evaluation import suite; suite.inputs = lambda *_, **__: sys.exit(3)"
    done = run(f"--workdir={copy}", *TINY, "--mode=evaluate", code=f"import sys; {end}")
    assert done.returncode == 3, done.stderr
    found = f"data.source: found data that have changed since {copy} was trained on them"
    assert done.stderr.splitlines() == [
        f"{found} (train: 9 examples then, 1500 now); the data are used as they are now"
    ]


@pytest.mark.parametrize("content", ["{", "[1]", '{"step": 4}'])
def test_damaged_evaluation_is_named_and_left_out_of_the_model_card(content, tmp_path, caplog):
    (tmp_path / "metrics.json").write_text(content)
    assert suite.stored(tmp_path) == (None, {})
    assert f"{tmp_path}/metrics.json: found no evaluation (" in caplog.text


def test_inception_weights_are_looked_for_before_the_work(run, workdir, tmp_path):
    """Without data, the program would end with another error."""
    remove = "from dualmcmc_jax.data import sources; sources.load = None"
    done = run(f"--workdir={workdir}", *TINY, "--mode=evaluate", f"--inception_weights={tmp_path}/no.pth", code=remove)
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: --inception_weights: found no file {tmp_path}/no")


@pytest.mark.parametrize("mode", ["sample", "evaluate", "export"])
def test_output_folder_is_checked_before_the_work(mode, run, workdir, tmp_path):
    """Without data and samplers, the program would end with another error."""
    (tmp_path / "file").touch()
    remove = "from dualmcmc_jax.data import sources; from dualmcmc_jax.evaluation import sampling; "
    remove += "sources.load = sampling.stream = None"
    done = run(f"--workdir={workdir}", *TINY, f"--mode={mode}", f"--out={tmp_path}/file/out", code=remove)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last == f"error: --out: found {tmp_path}/file/out (Not a directory), expected a folder that can be written to"
    )


@pytest.mark.more
def test_program_trains_samples_and_evaluates_vectors(run, tmp_path):
    done = run(f"--workdir={tmp_path}", *TINY, config="toy2d")
    assert done.returncode == 0, done.stderr
    done = run(f"--workdir={tmp_path}", *TINY, "--mode=sample", config="toy2d")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "samples" / "samples.npz")["revised"].shape == (100, 2)
    metrics, _ = evaluate(run, tmp_path, tmp_path / "out", config="toy2d")
    assert metrics["density/ebm/kl_data_model"] > 0
    assert metrics["revised/frechet_vectors"] > 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"samples.png", "energies.png", "long_run.png", "training.png", "report.html"} <= names


@pytest.mark.more  # CI does the same outside of the checkout, with the wheel
def test_training_runs_without_tensorflow(run, tmp_path):
    """Nor do sampling and evaluation need the packages of the extras, which are hidden here."""
    names = ("tensorflow", "tensorflow_datasets", "gcsfs")
    hide = f"import sys; sys.modules.update(dict.fromkeys({names}))"
    flags = (f"--workdir={tmp_path}", *TINY)
    for more in ((), ("--mode=sample", "--num_samples=4"), ("--mode=evaluate", *FEW)):
        done = run(*flags, *more, code=hide, tensorboard=True)
        assert done.returncode == 0, done.stderr
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert list((tmp_path / "tensorboard").iterdir())


FEW = [
    "--config.evaluation.num_samples=30",
    "--config.evaluation.num_neighbours=20",
    "--config.evaluation.num_held_out=25",
]


class Page(HTMLParser):
    """The tags, the references and the text of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.text += data


def evaluate(run, workdir, out, *flags, **settings):
    """Evaluate a run. Return its metrics and the finished process."""
    done = run(f"--workdir={workdir}", *TINY, *FEW, "--mode=evaluate", f"--out={out}", *flags, **settings)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "metrics.json").read_text()), done


@pytest.mark.slow
def test_evaluation_writes_metrics_figures_and_a_report(run, workdir, tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "ood.npz", noise)
    source = f"npz:{tmp_path / 'ood.npz'}"
    np.savez(tmp_path / "large.npz", np.zeros((40, 8, 9, 1), np.uint8))
    done = run(
        f"--workdir={workdir}", *TINY, "--mode=evaluate", f"--config.evaluation.ood=('npz:{tmp_path}/large.npz',)"
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"error: evaluation.ood: 'npz:{tmp_path}/large.npz': found examples of another shape, expected (8, 8, 1)"
    )
    assert not (workdir / "evaluation").exists()
    metrics, done = evaluate(run, workdir, tmp_path / "out", f"--config.evaluation.ood=('{source}',)")
    for model in ("generator", "revised"):
        for name in ("frechet_pixels_pca", "kernel_distance_pixels_pca", "precision", "recall", "density", "coverage"):
            assert f"{model}/{name}" in metrics
        for name in ("svc_score", "class_entropy", "seconds_per_1000", "nearest_train_median"):
            assert metrics[f"{model}/{name}"] > 0
    assert metrics["generator/network_evaluations_per_1000"] == 1000
    assert metrics["revised/network_evaluations_per_1000"] == 31_000
    assert not any("fid" in name.lower() or "kid" in name.lower() for name in metrics)
    for method in ("encoder", "encoder_mean_chain", "encoder_chain", "noise_chain"):
        assert {f"reconstruction/{method}/{name}" for name in ("mse", "psnr", "ssim")} <= set(metrics)
    for name in ("train", "held_out", "generator", "revised", "uniform_noise", "constant", "average_of_two", source):
        assert f"energy/{name}/mean" in metrics
    assert all(0 <= metrics[f"auroc/{name}"] <= 1 for name in ("uniform_noise", "constant", "average_of_two", source))
    assert {f"long_run/{steps}/energy" for steps in (30, 300, 3000)} <= set(metrics)
    assert (metrics["step"], metrics["num_samples"], metrics["num_held_out"]) == (4, 30, 25)
    model, held_out = dualmcmc_jax.load(workdir), sources.load(digits.get_config().data).test
    energy = model.energy(batches.to_float(jnp.asarray(held_out[batches.subset(len(held_out), 25)]), jnp.float32))
    assert metrics["energy/held_out/mean"] == pytest.approx(
        float(energy.mean()), rel=1e-5
    )  # of the averaged parameters

    assert "Checkpoint at step 4; 30 samples compared with 1,500 training examples" in done.stdout
    assert "x-revision: 30 Langevin steps of size 5e-05 at temperature 0.00111" in done.stdout
    for row in ("Frechet distance, pixel PCA ↓", "Digit-classifier score ↑", "MSE ↓", "uniform noise"):
        assert row in done.stdout
    names = (
        "samples x_revision z_revision interpolation reconstruction restoration energies neighbours long_run training"
    )
    names = names.split()
    files = {f"{name}.png" for name in names} | {"metrics.json", "report.html"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert page.tags.count("img") == len(names)
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "--config.train.num_steps=4" in page.text


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_report_is_readable_in_a_browser(width, workdir, tmp_path):
    """Without a network connection, the page shows text, tables and pictures inside white margins."""
    pictures = {"samples": workdir / "samples" / "samples_00000004.png"}
    metrics = {"step": 4, "num_samples": 30, "num_train": 1500, "features": "pixels_pca", "num_features": 64}
    metrics |= {"x_chain": (30, 5e-5, 1e-3), "generator/precision": 0.5, "reconstruction/encoder/mse": 0.1}
    (tmp_path / "report.html").write_text(suite.html("A title", metrics, pictures, config="--config.train.num_steps=4"))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [
        f"--window-size={width},1200",
        f"--screenshot={tmp_path / 'page.png'}",
        f"file://{tmp_path}/report.html",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    page = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    assert page.shape[1] == width
    dark = page < 128
    assert 0.02 < dark.mean() < 0.5
    assert len(np.unique(page)) > 50
    assert not dark[:, :8].any()


@pytest.mark.slow
def test_other_checkpoints_and_samplers_can_be_evaluated(run, workdir, tmp_path):
    """--step selects the checkpoint. evaluation.x_chain sets a sampler that only the evaluation uses."""
    metrics, _ = evaluate(run, workdir, tmp_path / "out", "--step=2", "--config.evaluation.x_chain=(70, 5e-5, 2e-3)")
    assert metrics["step"] == 2
    assert metrics["x_chain"] == [70, 5e-5, 2e-3]
    assert metrics["revised/network_evaluations_per_1000"] == 71_000
    assert {f"long_run/{steps}/energy" for steps in (30, 300, 3000)} <= set(metrics)
    done = run(f"--workdir={workdir}", *TINY, "--mode=evaluate", "--step=3")
    assert done.returncode != 0
    assert "error: --step: found 3, expected one of 2, 4" in done.stderr
    done = run(f"--workdir={workdir}", *TINY, "--mode=evaluate", "--config.x_chain.num_steps=70")
    assert done.returncode != 0
    assert "found a run with another config: x_chain.num_steps is 30 in the file and 70 now" in done.stderr
    assert not (workdir / "evaluation").exists()


@pytest.mark.more
def test_inception_weights_add_fid_kid_and_inception_score(run, tmp_path):
    """A file with another checksum is refused. The test then disables this check to use random weights."""
    pth.save(tmp_path / "weights.pth", inception_oracle.reference()[0])
    images = np.random.RandomState(0).randint(0, 256, (32, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", train=images[:24], test=images[24:])
    flags = [
        *TINY,
        f"--config.data.source=npz:{tmp_path / 'data.npz'}",
        "--config.evaluation.every=0",
        "--config.evaluation.num_samples=12",
        "--config.evaluation.group_size=4",
        "--config.evaluation.batch_size=8",
    ]
    done = run(f"--workdir={tmp_path / 'run'}", *flags)
    assert done.returncode == 0, done.stderr
    flags += ["--config.evaluation.num_held_out=8", f"--inception_weights={tmp_path / 'weights.pth'}"]
    done = run(f"--workdir={tmp_path / 'run'}", *flags, "--mode=evaluate")
    assert "weights.pth with sha256" in done.stderr
    assert not (tmp_path / "run" / "evaluation").exists()
    any_file = "import dualmcmc_jax.features.inception as inception; inception.SHA256 = ''"
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = run(f"--workdir={tmp_path / 'run'}", *flags, "--mode=evaluate", code=any_file, env=env)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "evaluation" / "4" / "metrics.json").read_text())
    for model in ("generator", "revised"):
        assert metrics[f"{model}/fid"] > 0
        assert f"{model}/kid" in metrics
        assert 1 < metrics[f"{model}/inception_score"] < 4  # the splits have one or two images
    assert metrics["num_features"] == 2048
