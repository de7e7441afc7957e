"""Invalid input is refused with one line that names the field or file, before anything is written."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from dualmcmc_jax.cli import startup
from dualmcmc_jax.data import cache

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of valid and invalid files, whose path replaces FILES in the cases."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "empty").mkdir()
    good = folder / "good"
    good.mkdir()
    for i in range(40):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(good / f"{i:02d}.png")
    cut = folder / "cut"
    cut.mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(cut / f"{i}.jpg")
    whole = (cut / "1.jpg").read_bytes()
    (cut / "1.jpg").write_bytes(whole[: len(whole) - 60])
    np.savez(folder / "objects.npz", np.array([{}, []], dtype=object))
    np.savez(folder / "nan.npz", np.array([[0.0, np.nan]] * 20))
    np.savez(folder / "shape.npz", np.zeros((20, 8, 9, 1), np.uint8))
    np.savez(folder / "floats.npz", np.zeros((20, 8, 8, 1)))
    np.savez(folder / "names.npz", a=np.zeros(2), b=np.zeros(2))
    np.savez(folder / "five.npz", np.zeros((6, 8, 8, 1), np.uint8))
    (folder / "text.npz").write_text("no archive")
    (folder / "text.zip").write_text("no archive")
    (folder / "empty.py").write_text("")
    (folder / "divides.py").write_text("def get_config():\n    return 1 / 0\n")
    (folder / "refuses.py").write_text("def get_config():\n    raise ValueError('too bad')\n")
    scalar = "    config = default.get_config()\n    config.energy.widths = 64\n    return config\n"
    (folder / "scalar.py").write_text(f"from dualmcmc_jax.configs import default\ndef get_config():\n{scalar}")
    (folder / "broken.py").write_text("def get_config(:\n")
    return folder


CASES = [
    ("", "--workdir: found no file WORKDIR/config.json, expected the workdir of a run, or a config, such as --config="),
    ("--workdir=FILES/empty", "--workdir: found no file FILES/empty/config.json, expected the workdir of a run"),
    ("--config=nosuch", "--config: found 'nosuch', expected a Python file or one of celeba64, celebahq256, cifar10"),
    ("--config=FILES/broken.py", "--config: found invalid syntax in FILES/broken.py, line 1"),
    ("--config=digits train", "found 'train', expected only flags"),
    ("--config=FILES/divides.py", "--config: found ZeroDivisionError (division by zero) in FILES/divides.py, line 2"),
    ("--config=FILES/empty.py", "--config: found no function get_config() in the file, expected one"),
    ("--config digits", "found '--config' without a value, expected --config=NAME or --config=FILE"),
    ("--config=images --config.data.source=images:~nosuchuser/x", "data.source: found ~nosuchuser/x, expected a path"),
    ("--config=digits --wokdir=x", "Unknown command line flag 'wokdir'. Did you mean: workdir ?"),
    ("--config=digits --mode=fly", "--mode: found 'fly', expected one of train, sample, evaluate, "),
    ("--config=digits --num_samples=0 --mode=sample", "--num_samples: found '0', expected a positive integer"),
    (
        "--config=digits --config.train.steps=3",
        "'train.steps', which is not a config field; did you mean train.num_steps?",
    ),
    (
        "--config=digits --config.batch_size=3",
        "'batch_size', which is not a config field; did you mean train.batch_size?",
    ),
    ("--config=digits --config.zzz=3", "found 'zzz', which is not a config field; configs/default.py lists all fields"),
    ("--config=digits --train.num_steps=3", "flag 'train.num_steps'; did you mean --config.train.num_steps?"),
    (
        "--config=digits --config.trains.seed=3",
        "--config: found 'trains.seed', which is not a config field; did you mean train.seed?",
    ),
    ("--config=digits --config.train.num_steps=many", "--config.train.num_steps: found 'many', expected an integer"),
    ("--config=digits --config.train.ema_decay=x", "--config.train.ema_decay: found 'x', expected a number"),
    ("--config=digits --config.data.flip=maybe", "--config.data.flip: found 'maybe', expected True or False"),
    ("--config=digits --config.train=3", "--config.train: found '3', expected --config.train.FIELD=VALUE, because"),
    (
        "--config=digits --config.energy.widths=64",
        '--config.energy.widths: found 64, expected a tuple, such as "(64,)"',
    ),
    ("--config=images --config.data.shape=32", 'data.shape: found 32, expected a tuple, such as "(32,32,3)"'),
    ("--config=digits --config.data.shape=(32,", "found '(32,', expected a tuple, such as \"(32,32,3)\""),
    ("--config=digits --config.energy.widths=(64,", "--config.energy.widths: found '(64,', expected a tuple, such as"),
    (
        "--config=digits --config.evaluation.ood=tfds:svhn",
        "--config.evaluation.ood: found tfds:svhn, expected a tuple, such as \"('tfds:svhn',)\"",
    ),
    (
        "--config=digits --config.energy.kind=resent",
        "energy.kind: found 'resent', expected one of 'mlp', 'conv', 'resnet', 'quadratic'; did you mean resnet?",
    ),
    ("--config=digits --config.x_chain.sampler=lanegvin", "'annealed'; did you mean langevin?"),
    ("--config=digit", "did you mean digits?"),
    ("--config=configs/digit.py", "did you mean configs/digits.py?"),
    ("--config=baselines/va:digits", "did you mean baselines/vae?"),
    ("--config=FILES/refuses.py", "--config: found ValueError (too bad) in FILES/refuses.py, line 2, expected a"),
    ("--config=FILES/scalar.py", "--config: found TypeError (Could not override field 'widths'"),
    ("--config=digits --config.energy.widths=(2.5,)", "energy.widths: found (2.5,), expected a tuple of integers"),
    ("--config=digits --config.energy.widths=(0,)", "energy.widths: found (0,), expected positive integers"),
    ("--config=digits --config.energy.widths=()", "energy.widths: found (), expected positive integers"),
    (
        "--config=digits --config.energy.kind=quadratic",
        "energy.widths: found (256, 256, 256), expected () for a quadratic energy",
    ),
    ("--config=digits --config.x_chain.resample=0.5", "x_chain.start_std: found 0.0, expected a positive number"),
    ("--config=digits --config.evaluation.resample=0.5", "x_chain.start_std: found 0.0, expected a positive number"),
    (
        "--config=digits --config.x_chain.resample=0.5 --config.x_chain.init=noise",
        "x_chain.init: found 'noise', expected 'generator', because x_chain.resample=0.5",
    ),
    ("--config=digits --config.x_chain.resample=11", "x_chain.resample: found 11.0, expected at most x_chain.prop"),
    (
        "--config=digits --config.x_chain.resample=1 --config.x_chain.broad_proposals=10",
        "x_chain.broad_proposals: found 10, expected fewer than x_chain.proposals (10)",
    ),
    (
        "--config=baselines/persistent --config.x_chain.resample=1 --config.x_chain.init=generator "
        "--config.x_chain.start_std=0.3",
        "x_chain.resample: found 1.0, expected 0, because no objective trains the generator",
    ),
    ("--config=digits --config.evaluation.resample=-2", "evaluation.resample: found -2.0, expected -1 (as in train"),
    ("--config=digits --config.x_chain.num_steps=-1", "x_chain.num_steps: found -1, expected 0 or a positive number"),
    ("--config=digits --config.energy.temperature=0", "energy.temperature: found 0.0, expected a positive number"),
    (
        "--config=digits --config.train.compute_dtype=half",
        "train.compute_dtype: found 'half', expected one of 'float32'",
    ),
    (
        "--config=cifar10 --config.data.shape=(48,48,3)",
        "data.shape: found (48, 48, 3), expected (S, S, 1 or 3) with S in",
    ),
    ("--config=cifar10 --config.generator.widths=(8,8)", "generator.widths: found 2 levels, expected 4 at 32 pixels"),
    (
        "--config=digits --config.train.batch_size=100",
        "a multiple of the number of devices (8), at most the number of training examples (1500), such as 96 or 104",
    ),
    ("--config=digits --config.train.batch_size=9999", "at most the number of training examples (1500)"),
    ("--config=digits --config.data.source=mnist", "data.source: found 'mnist', expected 'digits', "),
    (
        "--config=digits --config.data.shape=(16,16,1)",
        "data.shape: found (16, 16, 1), expected (8, 8, 1), the shape of 'digits'",
    ),
    (
        "--config=images --config.data.source=images:FILES/none",
        "data.source: found nothing at FILES/none, expected a folder",
    ),
    (
        "--config=images --config.data.source=images:FILES/empty",
        "data.source: found 0 images in FILES/empty, expected 2",
    ),
    (
        "--config=images --config.data.source=images:FILES/text.zip",
        "data.source: found a file that is not a zip file at FILES",
    ),
    (
        "--config=images --config.data.source=images:FILES/cut",
        "found 1 of 3 images that cannot be read, the first is 1.jpg: ",
    ),
    (
        "--config=images --config.data.source=images:FILES/good --config.data.crop=(0,0,17,17)",
        "found 40 of 40 images that cannot be read, the first is 00.png: data.crop is (0, 0, 17, 17), but the image has 16 x 16",
    ),
    (
        "--config=images --config.data.crop=(9,0,3,5)",
        "data.crop: found (9, 0, 3, 5), expected (left, top, right, bottom)",
    ),
    ("--config=digits --config.data.source=npz:FILES/none.npz", "data.source: found no file FILES/none.npz, expected"),
    ("--config=digits --config.data.source=npz:FILES/text.npz", "data.source: found FILES/text.npz unreadable ("),
    (
        "--config=digits --config.data.source=npz:FILES/objects.npz",
        "data.source: found FILES/objects.npz unreadable (Object arrays",
    ),
    (
        "--config=digits --config.data.source=npz:FILES/nan.npz",
        "data.source: found NaN or infinite numbers in array 'arr_0' of FILES/nan.npz",
    ),
    (
        "--config=digits --config.data.source=npz:FILES/shape.npz",
        "data.shape: found (8, 8, 1), expected (8, 9, 1), the shape of",
    ),
    (
        "--config=digits --config.data.source=npz:FILES/floats.npz",
        "data.source: found float64 (20, 8, 8, 1) in array 'arr_0' of FILES/floats",
    ),
    (
        "--config=digits --config.data.source=npz:FILES/names.npz",
        "data.source: found arrays 'a', 'b' in FILES/names.npz",
    ),
    (
        "--config=cifar10 --config.data.source=tfds:nosuch",
        "data.source: found 'tfds:nosuch', expected the name of a data set",
    ),
    (
        "--config=cifar10 --config.data.source=tfds:imdb_reviews",
        "found 'tfds:imdb_reviews', which has no feature 'image'",
    ),
    (
        "--config=cifar10",
        "data.source: found 'tfds:cifar10', which cannot be prepared; expected internet access and disk space: ",
    ),
    (
        "--config=celebahq256",
        "data.source: found 'tfds:celeb_a_hq/256', which must be downloaded by hand: Manual directory ",
    ),
    (
        "--config=digits --config.train.batch_size=96 --workdir=/dev/null/run",
        "--workdir: found /dev/null/run (Not a directory), expected a folder that",
    ),
    (
        "--config=digits --mode=evaluate --config.evaluation.num_samples=5",
        "--workdir: found no checkpoint in WORKDIR/checkpoints, expected one: train first",
    ),
    (
        "--config=digits --mode=evaluate --num_samples=77",
        "--num_samples: found with --mode=evaluate, expected --mode=sample",
    ),
    (
        "--config=digits --mode=sample --workdir=FILES/w\udcff",
        "--workdir: found 'FILES/w\\udcff', expected a path in UTF-8",
    ),
    ("--mode=sample --workdir=FILES/w\udcff", "--workdir: found 'FILES/w\\udcff', expected a path in UTF-8"),
    ("--mode=sample --workdir=", "--workdir: found nothing, expected folder of the run"),
    ("--config=digits --mode=sample --out=", "--out: found nothing, expected output folder"),
    (
        "--config=digits --config.train.batch_size=0 --inception_weights=",
        "--inception_weights: found nothing, expected",
    ),
    ("--config=digits --step=500", "--step: found with --mode=train, expected --mode=sample or evaluate"),
    ("--config=digits --mode=sample --out=FILES/text.npz", "--out: found a file FILES/text.npz, expected a folder"),
    ("--config=digits --num_processes=2", "--coordinator_address: found None, expected HOST:PORT of process 0"),
    (
        "--config=digits --num_processes=2 --coordinator_address=somewhere",
        "--coordinator_address: found somewhere, expected HOST:PORT of process 0",
    ),
    (
        "--config=digits --num_processes=2 --process_id=2 --coordinator_address=localhost:9",
        "--process_id: found 2, expected 0 to 1, with --num_processes=2",
    ),
    (
        "--config=digits --mode=sample --num_processes=2 --coordinator_address=localhost:9",
        "--num_processes: found with --mode=sample, expected --mode=train",
    ),
    ("--config=digits --step=-1 --mode=evaluate", "--step: found '-1', expected a non-negative integer"),
    (
        "--config=digits --config.evaluation.x_chain=(70,1e-6)",
        "evaluation.x_chain: found (70, 1e-06), expected () or (num_steps, step_size, temperature)",
    ),
    (
        "--config=digits --config.evaluation.ood=(3,)",
        "evaluation.ood: found (3,), expected a tuple of data sources",
    ),
    (
        "--config=digits --config.train.batch_size=96 --config.evaluation.num_held_out=298",
        "evaluation.num_held_out: found 298, expected at most 297, the number of held-out examples",
    ),
    (
        "--config=digits --config.train.batch_size=96 --config.evaluation.light_samples=5",
        "evaluation.light_samples: found 5, expected 6 or more",
    ),
    (
        "--config=digits --config.data.source=npz:FILES/five.npz",
        "data.source: found 5 training and 1 held-out examples, expected at least 6 training examples and 1 held-out "
        "example for an evaluation",
    ),
    (
        "--config=digits --inception_weights=FILES/none.pth",
        "--inception_weights: found no file FILES/none.pth, expected the file weights-inception-2015-12-05-6726825d.pth of https:",
    ),
    (
        "--config=digits --inception_weights=FILES/text.npz",
        "--inception_weights: found FILES/text.npz with sha256",
    ),
    (
        "--config=toy2d --config.evaluation.every=9 --inception_weights=FILES/text.npz",
        "--inception_weights: found vectors of shape (2,) as data, expected images",
    ),
    (
        "--config=digits --mode=sample",
        "--workdir: found no checkpoint in WORKDIR/checkpoints, expected one: train first",
    ),
]


NO_WAITING = "import time; time.sleep = lambda seconds: None"  # failing downloads are retried without a delay


@pytest.mark.parametrize(("flags", "message"), CASES, ids=[flags or "no flags" for flags, _ in CASES])
def test_invalid_input_is_refused_in_one_line(flags, message, files, tmp_path, programs):
    flags = flags.replace("FILES", str(files)).split()
    workdir = tmp_path / "run"
    if not any(flag.startswith("--workdir") for flag in flags):
        flags.append(f"--workdir={workdir}")
    env = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TFDS_DATA_DIR": str(tmp_path / "tfds"),
    }
    done = programs.run(*flags, env=env, code=NO_WAITING)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message.replace("FILES", str(files)).replace("WORKDIR", str(workdir)) in last
    assert not workdir.exists()
    assert not [path for path in (tmp_path / "cache" / "dualmcmc_jax").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (
            "study",
            ["table4", f"--config.train.seed={2**63 - 2}"],
            f"train.seed: found {2**63}, expected an integer from",
        ),
        (
            "study",
            ["table4", "--seed=1"],
            "--seed: found a flag that this program does not use, expected only --config,",
        ),
        ("study", ["table4", f"--seed={2**63}"], f"--seed: found '{2**63}', expected an integer in the range [0, "),
        ("benchmark", [f"--config.train.seed={2**63}"], f"train.seed: found {2**63}, expected an integer from 0"),
        ("benchmark", ["--seed=1"], "--seed: found a flag that this program does not use, expected only --config,"),
        ("benchmark", ["--seed=-1"], "--seed: found '-1', expected an integer in the range [0, "),
    ],
)
def test_seeds_of_studies_and_benchmarks_have_bounds(module, flags, message, programs, tmp_path):
    """The seeds of a study count up from that of the config. Neither program draws samples, so --seed is refused."""
    flags = ["--config=digits", *flags, *([f"--workdir={tmp_path / 'x'}"] if module == "study" else [])]
    done = programs.run(*flags, module=f"dualmcmc_jax.{module}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_reported_in_one_line(programs, tmp_path):
    code = "import jax; from dualmcmc_jax.data import sources\n"
    code += "sources.load = lambda _: jax.numpy.zeros((3_000_000, 3_000_000)).block_until_ready()"
    done = programs.run("--config=digits", f"--workdir={tmp_path}", code=code)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: memory: found too little (")
    assert last.endswith("expected enough for this config; lower train.batch_size or the networks' widths")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("platforms", ["cuda", "gpu"])
def test_platform_without_a_device_is_refused_in_one_line(platforms, monkeypatch):
    """JAX raises a bare AssertionError for "cuda" on a machine without a GPU, and a RuntimeError for other names."""
    error = AssertionError() if platforms == "cuda" else RuntimeError("Unable to initialize backend\nmore")

    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(ValueError, match=r"JAX_PLATFORMS: found cpu \(.*\), expected a platform") as refusal:
        startup.check_devices()
    assert "\n" not in str(refusal.value)


def test_debug_shows_the_traceback(programs):
    done = programs.run("--config=digits", "--config.energy.temperature=0", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_help_names_the_flags():
    done = subprocess.run(
        [sys.executable, "-m", "dualmcmc_jax.main", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    for word in ("--config=digits", "--workdir", "--mode", "--num_samples", "--seed", "--out"):
        assert word in done.stdout


@pytest.mark.parametrize("home", ["missing", "file", "read-only"])
def test_program_runs_without_a_cache_folder(home, tmp_path, monkeypatch, caplog):
    """A container may run with a uid that has no name and no home folder, or with a home folder of another user."""
    monkeypatch.setattr(cache, "_warned", [])
    monkeypatch.delenv("XDG_CACHE_HOME")
    if home == "missing":
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
        monkeypatch.chdir(tmp_path)
    else:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if home == "file":
        (tmp_path / "home").write_text("in the way")
    if home == "read-only":
        monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(tmp_path))
    for _ in range(2):
        assert cache.writable_folder("programs") is None
        np.testing.assert_array_equal(cache.arrays("kind", home, lambda: {"x": np.arange(3)})["x"], np.arange(3))
    assert [cache.arrays("kind", home, dict)["x"].sum()] == [3]  # from the temporary folder
    (line,) = caplog.messages
    assert line.startswith("cache folder: found ")
    assert line.endswith("XDG_CACHE_HOME can name another folder")
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".npz" or path.name == "~"]


def test_cached_arrays_are_read_from_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.arrays("kind", "key", lambda: {"x": np.arange(3)})
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    np.testing.assert_array_equal(cache.arrays("kind", "key", dict)["x"], np.arange(3))
