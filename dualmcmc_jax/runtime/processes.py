"""Several processes as one run: on the hosts of a TPU slice, or on a cluster of GPUs."""

import glob
import importlib.util
import os

import jax

HEARTBEAT_TIMEOUT = 30
"""Seconds without a sign of life after which JAX takes a process for dead and aborts the others, with code 134."""


def join(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_device_ids: list[int] | None = None,
) -> None:
    """Make this process one of several; to be called before anything else of JAX. The cluster tells what is None.

    Args:
      coordinator_address: HOST:PORT where process 0 listens.
      num_processes: number of processes.
      process_id: number of this process, from 0.
      local_device_ids: the GPUs of this host that this process uses; None: all.

    Raises:
      ValueError: the processes do not find each other.
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
        found = f"{coordinator_address or 'no answer of the cluster'} ({str(error).splitlines()[0]})"
        raise ValueError(f"coordinator_address: found {found}, expected a free port of process 0's host") from error


def join_cluster(coordinator_address: str | None) -> None:
    """Join the others if a cluster has started this process as one of several: Cloud TPU, Slurm or Open MPI.

    Open MPI 5 does not tell where process 0 is, so there coordinator_address must.
    """
    size, rank = os.environ.get("OMPI_COMM_WORLD_SIZE", "1"), os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    if int(size) > 1 and "OMPI_MCA_orte_hnp_uri" not in os.environ:
        if not coordinator_address:
            raise ValueError("coordinator_address: found nothing under Open MPI 5, expected HOST:PORT of process 0")
        join(coordinator_address, int(size), int(rank), [int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])])
    elif int(size) > 1 or _in_slurm() or _on_tpu():
        join(coordinator_address)


def _in_slurm() -> bool:
    """Return whether srun has started this process as one of several; the shell of a job is no such process."""
    return "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _on_tpu() -> bool:
    wanted = os.environ.get("JAX_PLATFORMS", "tpu")
    chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return "tpu" in wanted and bool(chips) and importlib.util.find_spec("libtpu") is not None
