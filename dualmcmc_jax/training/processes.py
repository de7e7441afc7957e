"""Several processes as one run: on the hosts of a TPU slice, or on a cluster of GPUs."""

import jax

HEARTBEAT_TIMEOUT = 30
"""Seconds without a sign of life after which JAX takes a process for dead and aborts the others, with code 134."""


def join(coordinator_address: str, num_processes: int, process_id: int) -> None:
    """Makes this process one of several; before anything else of JAX.

    Args:
      coordinator_address: HOST:PORT where process 0 listens.
      num_processes: how many there are.
      process_id: of this one, from 0.

    Raises:
      ValueError: they do not find each other.
    """
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT
        )
    except RuntimeError as error:
        found = f"{coordinator_address} ({str(error).splitlines()[0]})"
        raise ValueError(f"--coordinator_address: found {found}, expected a free port of process 0's host") from error
