"""Two processes on loopback, two virtual devices each, train, save and restore together like one with four."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

WORKER = """
import sys
import jax
process, num_processes, port, workdir = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if num_processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes, process)
import tiny
from pathlib import Path
from dualmcmc_jax.data import sources
from dualmcmc_jax.training import loop
for num_steps in (10, 20):
    config = tiny.config(train__num_steps=num_steps, train__compute_dtype="float64", checkpoint__every=10)
    config.data.shape = (8, 8, 1)
    config.generator.update(kind="resnet", widths=(4, 4))
    nothing = {"draw": lambda step, state: {}, "measure": lambda state: {}}
    state = loop.train(config, Path(workdir), dataset=sources.load(config.data), **nothing)
    assert int(state.step) == num_steps
assert jax.device_count() == 4
"""


def launch(num_processes, workdir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // num_processes} --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(i), str(num_processes), str(port), str(workdir)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(num_processes)
    ]
    try:
        for worker in workers:
            output, _ = worker.communicate(timeout=300)
            assert worker.returncode == 0, output[-3000:]
    finally:
        for worker in workers:
            worker.kill()


def test_two_processes_equal_one(tmp_path):
    launch(1, tmp_path / "one")
    launch(2, tmp_path / "two")
    one, two = tiny.rows(tmp_path / "one"), tiny.rows(tmp_path / "two")
    assert [row["step"] for row in two] == [5, 10, 15, 20]
    for expected, actual in zip(one, two, strict=True):
        assert actual == pytest.approx(expected, rel=1e-9)
