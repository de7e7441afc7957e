"""Settings and fixtures of all tests: virtual CPU devices, float64, a shared cache, and a way to start programs."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import forks
import pytest

# nohup and the background of a shell ignore these signals, which tests send to this process and to programs.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"
CACHE = None
PROGRAMS = Path(__file__).parents[1] / ".pytest_cache" / "programs"
MAX_PROGRAMS = 2**30  # bytes
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers and the programs that they start share both
    CACHE = tempfile.mkdtemp(prefix="dualmcmc_jax-tests-")
    os.environ["XDG_CACHE_HOME"] = CACHE
    # Compiled programs are kept for the next test session. The key of an entry is a hash of its program.
    if PROGRAMS.exists() and sum(path.stat().st_size for path in PROGRAMS.iterdir()) > MAX_PROGRAMS:
        shutil.rmtree(PROGRAMS)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(PROGRAMS)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_collection_modifyitems(items):
    """Put the slow tests first, so that no process still runs a slow test when the others have finished."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_unconfigure():
    """Remove the cache."""
    if CACHE:
        shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _free_compiled_programs():
    """Free compiled programs if there are many. Each has memory maps, and Linux allows 65,530 maps per process."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 20_000:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _no_tensorboard():
    """Disable TensorBoard events, which take time to write. The fixture `tensorboard` enables them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", None)
        yield


@pytest.fixture
def tensorboard(monkeypatch):
    """Enable TensorBoard events in the process of the test."""
    monkeypatch.delitem(sys.modules, "tensorboard")


@pytest.fixture(scope="session")
def programs():
    """A server that starts the project's programs: programs.run("--config=digits", ...) or programs.start(...)."""
    server = forks.Server()
    yield server
    server.close()
