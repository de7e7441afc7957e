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
    """Makes this process one of several; before anything else of JAX. What is None, the cluster tells.

    Args:
      coordinator_address: HOST:PORT where process 0 listens.
      num_processes: how many there are.
      process_id: of this one, from 0.
      local_device_ids: the GPUs of this host that are this process's; None: all.

    Raises:
      ValueError: they do not find each other.
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
    """Joins the others if a cluster has started this process as one of several: Cloud TPU, Slurm or Open MPI.

    Open MPI 5 does not tell where process 0 is, so there coordinator_address must.
    """
    size, rank = os.environ.get("OMPI_COMM_WORLD_SIZE", "1"), os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    if int(size) > 1 and "OMPI_MCA_orte_hnp_uri" not in os.environ:
        if not coordinator_address:
            raise ValueError("coordinator_address: found nothing under Open MPI 5, expected HOST:PORT of process 0")
        join(coordinator_address, int(size), int(rank), [int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])])
    elif int(size) > 1 or _in_slurm() or _on_tpu():
        join(coordinator_address)


def check_alone(mode: str) -> None:
    """Raises ValueError if this process is one of several."""
    if jax.process_count() > 1:
        raise ValueError(
            f"mode: found {mode!r} in one of {jax.process_count()} processes, expected one, on a single host"
        )


def _in_slurm() -> bool:
    """Whether srun has started this process as one of several; the shell of a job is no such process."""
    return "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _on_tpu() -> bool:
    wanted = os.environ.get("JAX_PLATFORMS", "tpu")
    chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return "tpu" in wanted and bool(chips) and importlib.util.find_spec("libtpu") is not None
