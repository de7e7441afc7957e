"""A run that is asked to stop saves its state, says so, and goes on to the same end."""

import json
import signal
import time

import pytest
import tiny

pytestmark = pytest.mark.slow

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


def under_way(workdir, process):
    """Waits for the first rows of metrics."""
    path = workdir / "metrics.jsonl"
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.stderr
        time.sleep(0.05)


@pytest.fixture(scope="module")
def expected(start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    process = start(workdir)
    under_way(workdir, process)
    second = start(workdir)
    assert second.wait(60) == 1
    line = second.stderr.strip().splitlines()[-1]
    assert line.startswith(f"error: --workdir: found {workdir} in use by process {process.pid} on ")
    assert process.wait(300) == 0, process.stderr
    return workdir


@pytest.mark.more  # tests/stress.py does the same, and more, on every run of CI
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_and_goes_on(number, start, expected, tmp_path):
    process = start(tmp_path)
    under_way(tmp_path, process)
    process.send_signal(number)
    assert process.wait(60) == 75
    last = process.stderr.strip().splitlines()[-1]
    (step,) = (int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert 10 <= step < 600
    assert last.endswith(f"stopped after step {step} and saved a checkpoint; run the same command again to resume")
    process = start(tmp_path)
    assert process.wait(300) == 0
    assert f"resuming at step {step}" in process.stderr
    assert tiny.rows(tmp_path) == tiny.rows(expected)
    states = [arrays(workdir) for workdir in (tmp_path, expected)]
    assert states[0] == states[1]


def arrays(workdir):
    """The checksums of the arrays of the last checkpoint."""
    return json.loads((workdir / "checkpoints" / "600" / "record" / "metadata").read_text())["checksums"]


def test_a_second_signal_ends_it_at_once(start, tmp_path):
    process = start(tmp_path)
    under_way(tmp_path, process)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert not list((tmp_path / "checkpoints").iterdir())
