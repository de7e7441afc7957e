"""A check that the memory of this process grows by less than a bound."""

import contextlib
import resource
from pathlib import Path


@contextlib.contextmanager
def bounded(megabytes: int):
    """Assert that the peak resident memory of this process grows by less than a bound inside the context."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current memory on Linux
    before = _peak()
    yield
    assert _peak() - before < 1000 * megabytes


def _peak() -> int:
    """Return the peak resident memory in kB."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
