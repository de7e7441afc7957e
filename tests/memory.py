"""How far memory grows."""

import contextlib
import resource
from pathlib import Path


@contextlib.contextmanager
def bounded(megabytes: int):
    """Asserts that the process's peak of resident memory rises by less than this while it is entered."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is resident now
    before = _peak()
    yield
    assert _peak() - before < 1000 * megabytes


def _peak() -> int:
    """In kB."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
