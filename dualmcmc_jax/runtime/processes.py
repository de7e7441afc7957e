"""Runs of several processes, on the hosts of a TPU slice or on a cluster of GPUs."""

import glob
import importlib.util
import os

import jax

HEARTBEAT_TIMEOUT = 30
"""Timeout in seconds. If a process sends no heartbeat for this long, JAX aborts the others with exit code 134."""


def join(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_device_ids: list[int] | None = None,
) -> None:
    """Connect this process to the other processes of the run. Call this before any other function of JAX.

    Arguments that are None are detected from the cluster.

    Args:
      coordinator_address: HOST:PORT at which process 0 listens.
      num_processes: number of processes.
      process_id: index of this process, from 0.
      local_device_ids: the GPUs of this host that this process uses; None: all.

    Raises:
      ValueError: the processes cannot connect.
    """
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            local_device_ids,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        found = f"{coordinator_address or 'no address from the cluster'} ({str(error).splitlines()[0]})"
        raise ValueError(f"coordinator_address: found {found}, expected a free port of process 0's host") from error


def join_cluster(coordinator_address: str | None) -> None:
    """Connect to the other processes if Cloud TPU, Slurm or Open MPI started this process as one of several.

    Args:
      coordinator_address: HOST:PORT at which process 0 listens. It is required under Open MPI 5, which does not provide
        this address.

    Raises:
      ValueError: the processes cannot connect, or the required address is missing.
    """
    size, rank = os.environ.get("OMPI_COMM_WORLD_SIZE", "1"), os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    if int(size) > 1 and "OMPI_MCA_orte_hnp_uri" not in os.environ:
        if not coordinator_address:
            raise ValueError("coordinator_address: found nothing under Open MPI 5, expected HOST:PORT of process 0")
        join(coordinator_address, int(size), int(rank), [int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])])
    elif int(size) > 1 or _in_slurm() or _on_tpu():
        join(coordinator_address)


def _in_slurm() -> bool:
    """Return whether srun started this process as one of several. The batch script of a job does not count."""
    return "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _on_tpu() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS", "tpu")
    chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return "tpu" in platforms and bool(chips) and importlib.util.find_spec("libtpu") is not None
