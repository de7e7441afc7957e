"""After a full disk, a deleted workdir or a killed process, the error is one line and saved checkpoints are intact."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import pictures
from dualmcmc_jax.runtime import checksums, workdirs
from dualmcmc_jax.training import checkpointing, loop

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SMALL = [
    "--config=configs/digits.py",
    "--config.train.num_steps=1000",
    "--config.train.batch_size=40",
    "--config.energy.widths=(32,)",
    "--config.generator.widths=(32,)",
    "--config.encoder.widths=(32,)",
    "--config.checkpoint.every=20",
    "--config.evaluation.every=0",
    "--config.log.images_every=100",
]
MAIN = [sys.executable, "-m", "dualmcmc_jax.main"]
ENV = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}


def train(workdir, draw=lambda step, state: {}, **fields):
    config = tiny.config(checkpoint__every=10, log__images_every=20, **fields)
    dataset = sources.load(config.data)
    return loop.train(config, workdir, dataset=dataset, draw=draw, measure=lambda state: {})


def test_deleted_workdir_is_reported(tmp_path):
    message = r"run/(metrics.jsonl|checkpoints): (found no such file|found no such folder|saving a checkpoint failed)"
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", lambda step, state: shutil.rmtree(tmp_path / "run", ignore_errors=True) or {})


def test_failed_save_is_reported_in_one_line(tmp_path):
    def draw(step, state):
        time.sleep(1)
        (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
        (tmp_path / "checkpoints").write_text("in the way")
        return {}

    with pytest.raises(
        ValueError, match=r"checkpoints: saving a checkpoint failed \(.*there is no checkpoint yet"
    ) as error:
        train(tmp_path, draw)
    assert len(str(error.value).splitlines()) == 1
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "checkpoints")
    assert int(checkpointing.restore(tiny.config(), tmp_path).step) == 20


def test_failed_save_ends_the_process(programs, tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    done = programs.run(*SMALL, "--config.train.num_steps=2", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.more  # tests/stress.py also fills a disk
def test_run_resumes_after_a_full_disk(tmp_path):
    """The workdir is on a file system of 3 MB, which the run fills. It is mounted in a separate namespace."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces")
    command = (
        f"mount -t tmpfs -o size=3M none {tmp_path} && cd {ROOT} && "
        f"{' '.join(MAIN + [repr(flag) for flag in SMALL])} --config.checkpoint.keep=99 --workdir={tmp_path}/run; "
        f'code=$?; cp -r {tmp_path}/run "$OUT"; exit $code'
    )
    out = tmp_path.with_name(f"{tmp_path.name}-after")
    try:
        done = subprocess.run(
            [*namespace, "sh", "-c", command], env=ENV | {"OUT": str(out)}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert f"error: {tmp_path}/run/checkpoints: found " in done.stderr.splitlines()[-1]
        steps = [int(path.name) for path in (out / "checkpoints").iterdir()]
        assert f"the newest checkpoint has step {max(steps)}" in done.stderr
        assert sorted(steps) == list(range(20, max(steps) + 1, 20))
        again = subprocess.run(
            [*MAIN, *SMALL, "--config.train.num_steps=200", "--config.checkpoint.keep=99", f"--workdir={out}"],
            cwd=ROOT,
            env=ENV,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert again.returncode == 0, again.stderr
        assert f"resuming at step {max(steps)}" in again.stderr
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_training_continues_if_a_picture_cannot_be_written(tmp_path, caplog):
    (tmp_path / "samples").write_text("in the way")
    config = tiny.config()
    held_out = sources.load(config.data).test
    state = train(tmp_path, pictures.drawer(config, held_out, tmp_path / "samples"))
    assert int(state.step) == 40
    path = tmp_path / "samples" / "samples_00000020.png"
    assert f"{path} could not be written (File exists). Training continues." in caplog.text


def test_workdir_in_use_is_refused(tmp_path):
    with workdirs.claim(tmp_path, tiny.config().to_dict()):
        found = f"found {tmp_path} in use by process {os.getpid()} on "
        with pytest.raises(ValueError, match=found), workdirs.claim(tmp_path, tiny.config().to_dict()):
            pass
    with workdirs.claim(tmp_path, tiny.config().to_dict()):
        pass


def test_copied_workdir_resumes_bit_for_bit(tmp_path):
    """The time stamps of the copy are a year old, and the original workdir is deleted."""
    one = train(tmp_path / "one")
    train(tmp_path / "here", train__num_steps=20)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    past = time.time() - 365 * 86400
    for path in (tmp_path / "there").rglob("*"):
        os.utime(path, (past, past))
    shutil.rmtree(tmp_path / "here")
    there = train(tmp_path / "there")
    assert tiny.rows(tmp_path / "there") == tiny.rows(tmp_path / "one")
    assert checksums.checksums(there) == checksums.checksums(one)


def start_pair(programs, workdir, heartbeat_timeout=30):
    """Start two processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    set_timeout = f"from dualmcmc_jax.runtime import processes; processes.HEARTBEAT_TIMEOUT = {heartbeat_timeout}"
    flags = [*SMALL, f"--workdir={workdir}", "--num_processes=2", f"--coordinator_address=127.0.0.1:{port}"]
    return [programs.start(*flags, f"--process_id={i}", code=set_timeout) for i in range(2)]


def wait_for_checkpoint(workdir, processes):
    while not list(workdir.glob("checkpoints/[0-9]*[0-9]")):
        assert [process.poll() for process in processes] == [None, None], processes[0].stderr
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.more)])
def test_two_processes_save_the_same_step_after_a_signal(number, programs, tmp_path):
    processes = start_pair(programs, tmp_path / "run")
    try:
        wait_for_checkpoint(tmp_path / "run", processes)
        processes[1].send_signal(number)
        assert [process.wait(120) for process in processes] == [75, 75]
    finally:
        for process in processes:
            process.kill()
    step = max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    for process in processes:
        assert (
            process.stderr.splitlines()[-1]
            == f"stopped after step {step} and saved a checkpoint; run the same command again to resume"
        )


@pytest.mark.more
def test_process_aborts_if_the_other_stops_responding(programs, tmp_path):
    processes = start_pair(programs, tmp_path / "run", heartbeat_timeout=5)
    try:
        wait_for_checkpoint(tmp_path / "run", processes)
        processes[1].send_signal(signal.SIGSTOP)
        assert processes[0].wait(120) == -signal.SIGABRT
    finally:
        for process in processes:
            process.kill()
