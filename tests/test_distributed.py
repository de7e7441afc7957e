"""Several processes that are connected over loopback train, save and restore like a single process."""

import os
import socket
from pathlib import Path

import forks
import pytest
import tiny

from dualmcmc_jax.data import sources
from dualmcmc_jax.runtime import processes
from dualmcmc_jax.training import loop

pytestmark = pytest.mark.slow

NUM_DEVICES = 4
WORKER = """
import os, sys
from pathlib import Path
sys.path.append(TESTS)
num_steps, workdir = int(sys.argv[1]), Path(sys.argv[2])
from dualmcmc_jax.runtime import processes
if len(sys.argv) > 3:
    processes.join(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
else:
    processes.join_cluster(None)
import jax
import test_distributed
jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 4
assert int(test_distributed.train(num_steps, workdir).step) == num_steps
"""


def train(num_steps, workdir):
    config = tiny.config(train__num_steps=num_steps, train__compute_dtype="float64", checkpoint__every=10)
    config.generator.update(kind="resnet", widths=(4, 4))
    dataset = sources.load(config.data)
    return loop.train(config, workdir, dataset=dataset, draw=lambda step, state: {}, measure=lambda state: {})


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(programs, num_processes, num_steps, workdir, cluster=None):
    """Train with several processes up to num_steps.

    The processes get the address as an argument. If `cluster` is given, they read the address from the environment
    variables cluster(i) of process i instead.
    """
    count = NUM_DEVICES // num_processes
    env = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count} {forks.QUICK}"}
    address = f"127.0.0.1:{free_port()}"
    addresses = lambda i: [address, str(num_processes), str(i)] if not cluster else []
    code = WORKER.replace("TESTS", repr(str(Path(__file__).parent)))
    workers = [
        programs.start(
            str(num_steps),
            str(workdir),
            *addresses(i),
            code=code,
            module=None,
            env=env | (cluster(i) if cluster else {}),
        )
        for i in range(num_processes)
    ]
    try:
        for worker in workers:
            assert worker.wait(300) == 0, worker.stderr[-3000:]
    finally:
        for worker in workers:
            worker.kill()


def slurm(i):
    """Return the environment of Slurm task i of 2. JAX derives a port from the number of the job."""
    names = ["JOB_ID", "STEP_NODELIST", "NTASKS", "STEP_NUM_TASKS", "PROCID", "LOCALID", "STEP_NUM_NODES"]
    values = str(os.getpid()), "127.0.0.1", "2", "2", str(i), str(i), "1"
    return {f"SLURM_{name}": value for name, value in zip(names, values, strict=True)}


def test_two_processes_equal_a_single_process(programs, tmp_path):
    """Two processes begin a run, and two tasks of a Slurm job resume it. Compare with a run in this process."""
    train(15, tmp_path / "one")
    launch(programs, 2, 10, tmp_path / "many")
    launch(programs, 2, 15, tmp_path / "many", slurm)
    one, many = tiny.rows(tmp_path / "one"), tiny.rows(tmp_path / "many")
    assert [row["step"] for row in many] == [5, 10, 15]
    for expected, actual in zip(one, many, strict=True):
        assert actual == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "3", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),  # the shell of a batch script
        ({"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, None),  # an interactive job
        ({"SLURM_STEP_NODELIST": "a[1-2]", "SLURM_STEP_NUM_TASKS": "2"}, (None,)),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:9"}, (None,)),
        (
            {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
            ("host:9", 4, 3, [1]),
        ),
    ],
)
def test_clusters_are_detected(environment, expected, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    joined = []
    monkeypatch.setattr(processes, "join", lambda *arguments: joined.append(arguments))
    processes.join_cluster("host:9" if expected and len(expected) > 1 else None)
    assert joined == ([] if expected is None else [expected])


def test_open_mpi_5_requires_an_address(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"^coordinator_address: found nothing under Open MPI 5, expected HOST:PORT"):
        processes.join_cluster(None)


def test_cloud_tpus_are_detected(monkeypatch):
    joined = []
    monkeypatch.setattr(processes, "join", lambda *arguments: joined.append(arguments))
    monkeypatch.setattr(processes.glob, "glob", lambda pattern: ["/dev/vfio/0"] if "vfio" in pattern else [])
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: name == "libtpu")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    processes.join_cluster(None)
    assert not joined
    monkeypatch.delenv("JAX_PLATFORMS")
    processes.join_cluster(None)
    assert joined == [(None,)]
