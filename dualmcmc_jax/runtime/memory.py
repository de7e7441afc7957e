"""Errors that mean that the memory of the host or of a device is used up."""

import re

_MESSAGES = re.compile(r"out of memory|out_of_memory|cannot allocate memory|bad_alloc|resource_exhausted.*alloc", re.I)
"""Messages of JAX, CUDA and the operating system. RESOURCE_EXHAUSTED alone may also mean a full disk."""


def ran_out(error: BaseException | None) -> bool:
    """Return whether an error, or an error that caused it, is a lack of memory."""
    return error is not None and (
        isinstance(error, MemoryError) or bool(_MESSAGES.search(str(error))) or ran_out(error.__cause__)
    )
