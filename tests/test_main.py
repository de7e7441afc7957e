"""The program as a user starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
TINY = [
    "--config.train.num_steps=4",
    "--config.train.batch_size=20",
    "--config.energy.widths=(8,)",
    "--config.generator.widths=(8,)",
    "--config.encoder.widths=(8,)",
    "--config.log.every=2",
    "--config.checkpoint.every=2",
    "--config.log.images_every=2",
]


def run(*flags, config="configs/digits.py", code=""):
    """Runs the program in a process of its own, after the given code."""
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    start = (
        f"import runpy, sys\n{code}\nsys.argv[0] = 'main'\nrunpy.run_module('dualmcmc_jax.main', run_name='__main__')"
    )
    command = [sys.executable, "-c", start, f"--config={config}", *flags]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("main") / "run"
    done = run(f"--workdir={workdir}", *TINY)
    assert done.returncode == 0, done.stderr
    assert "4/4" in done.stderr
    assert "step/s" in done.stderr
    assert not re.search(r"^[IW]\d{4} ", done.stderr, re.MULTILINE), done.stderr
    return workdir


def test_train_leaves_pictures(workdir):
    for step in (2, 4):
        assert (workdir / "samples" / f"step_{step:08d}.png").read_bytes().startswith(b"\x89PNG")
    assert list((workdir / "tensorboard").iterdir())


def test_sample(workdir, tmp_path):
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


def test_vectors(tmp_path):
    done = run(f"--workdir={tmp_path}", *TINY, config="configs/toy2d.py")
    assert done.returncode == 0, done.stderr
    done = run(f"--workdir={tmp_path}", *TINY, "--mode=sample", config="configs/toy2d.py")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "samples" / "samples.npz")["revised"].shape == (100, 2)


def test_without_tensorflow(tmp_path):
    names = ("tensorflow", "tensorboard", "tensorflow_datasets")
    block = f"sys.modules.update(dict.fromkeys({names}))"
    done = run(f"--workdir={tmp_path}", *TINY, code=block)
    assert done.returncode == 0, done.stderr
    assert "TensorBoard events are not written" in done.stderr
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "tensorboard").exists()
