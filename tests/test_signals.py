"""A run that receives a signal saves its state and prints a message. When resumed, it gets the same result."""

import json
import os
import signal
import time

import pytest
import tiny

from dualmcmc_jax.runtime import signals

FLAGS = [
    "--config=configs/digits.py",
    "--config.train.num_steps=600",
    "--config.train.batch_size=40",
    "--config.checkpoint.every=1000",
    "--config.evaluation.every=0",
    "--config.log.every=10",
]


@pytest.fixture(scope="module")
def start(programs):
    return lambda workdir: programs.start(*FLAGS, f"--workdir={workdir}")


def wait_for_metrics(workdir, process):
    """Wait until the run has written metrics."""
    path = workdir / "metrics.jsonl"
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.stderr
        time.sleep(0.05)


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    process = start(workdir)
    wait_for_metrics(workdir, process)
    second = start(workdir)
    assert second.wait(60) == 1
    line = second.stderr.strip().splitlines()[-1]
    assert line.startswith(f"error: --workdir: found {workdir} in use by process {process.pid} on ")
    assert process.wait(300) == 0, process.stderr
    return workdir


@pytest.mark.slow
@pytest.mark.more  # CI runs tests/stress.py, which does the same
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_stops_at_a_signal_and_resumes_bit_for_bit(number, start, uninterrupted, tmp_path):
    process = start(tmp_path)
    wait_for_metrics(tmp_path, process)
    process.send_signal(number)
    assert process.wait(60) == 75
    last = process.stderr.strip().splitlines()[-1]
    (step,) = (int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert 10 <= step < 600
    assert last.endswith(f"stopped after step {step} and saved a checkpoint; run the same command again to resume")
    process = start(tmp_path)
    assert process.wait(300) == 0
    assert f"resuming at step {step}" in process.stderr
    assert tiny.rows(tmp_path) == tiny.rows(uninterrupted)
    states = [checksums(workdir) for workdir in (tmp_path, uninterrupted)]
    assert states[0] == states[1]


def checksums(workdir):
    """Return the checksums of the arrays in the last checkpoint."""
    return json.loads((workdir / "checkpoints" / "600" / "record" / "metadata").read_text())["checksums"]


@pytest.mark.slow
def test_second_signal_ends_the_run_at_once(start, tmp_path):
    process = start(tmp_path)
    wait_for_metrics(tmp_path, process)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_closed_terminal_or_time_limit_asks_the_run_to_stop(number):
    """A shell and the kernel both send SIGHUP when a terminal is closed, so a second one does not end the process."""
    before = signal.getsignal(number)
    with signals.Watch() as watch:
        assert not watch.asked(1)
        for _ in range(2):
            os.kill(os.getpid(), number)
            assert watch.asked(2)
    assert signal.getsignal(number) == before


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.Watch() as watch:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not watch.asked(1)
    finally:
        signal.signal(signal.SIGHUP, before)
