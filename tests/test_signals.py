"""A run that is asked to stop saves its state, says so, and goes on to the same end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parents[1]
FLAGS = [
    "--config=configs/digits.py",
    "--config.train.num_steps=600",
    "--config.train.batch_size=40",
    "--config.checkpoint.every=1000",
    "--config.evaluation.every=0",
    "--config.log.every=10",
]


def start(workdir):
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    command = [sys.executable, "-m", "dualmcmc_jax.main", *FLAGS, f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def under_way(workdir, process):
    """Waits for the first rows of metrics."""
    path = workdir / "metrics.jsonl"
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    process = start(workdir)
    under_way(workdir, process)
    second = start(workdir)
    assert second.wait(60) == 1
    line = second.stderr.read().strip().splitlines()[-1]
    assert line.startswith(f"error: --workdir: found {workdir} in use by process {process.pid} on ")
    assert process.wait(300) == 0, process.stderr.read()
    return workdir


@pytest.mark.more  # tests/stress.py does the same, and more, on every run of CI
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_and_goes_on(number, expected, tmp_path):
    process = start(tmp_path)
    under_way(tmp_path, process)
    asked = time.perf_counter()
    process.send_signal(number)
    assert process.wait(30) == 75
    print(f"stopped after {time.perf_counter() - asked:.1f} s")
    last = process.stderr.read().strip().splitlines()[-1]
    (step,) = (int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert 10 <= step < 600
    assert last.endswith(f"stopped after step {step}, which is saved; the same command goes on from there")
    process = start(tmp_path)
    assert process.wait(300) == 0
    assert f"resuming at step {step}" in process.stderr.read()
    assert tiny.rows(tmp_path) == tiny.rows(expected)
    states = [arrays(workdir) for workdir in (tmp_path, expected)]
    assert states[0] == states[1]


def arrays(workdir):
    """The checksums of the arrays of the last checkpoint."""
    return json.loads((workdir / "checkpoints" / "600" / "record" / "metadata").read_text())["checksums"]


def test_a_second_signal_ends_it_at_once(tmp_path):
    process = start(tmp_path)
    under_way(tmp_path, process)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    assert process.wait(10) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert not list((tmp_path / "checkpoints").iterdir())
