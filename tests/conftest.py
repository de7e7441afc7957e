"""What all tests share: virtual CPU devices, float64, one cache of compiled programs, and started programs."""

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import forks
import pytest

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"
CACHE = None
PROGRAMS = Path(__file__).parents[1] / ".pytest_cache" / "programs"
MAX_PROGRAMS = 2**30  # bytes
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers and all that they start share both folders
    CACHE = tempfile.mkdtemp(prefix="dualmcmc_jax-tests-")
    os.environ["XDG_CACHE_HOME"] = CACHE
    # Compiled programs stay for the next test session. A changed program has another name, so none is ever wrong.
    if PROGRAMS.exists() and sum(path.stat().st_size for path in PROGRAMS.iterdir()) > MAX_PROGRAMS:
        shutil.rmtree(PROGRAMS)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(PROGRAMS)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_collection_modifyitems(items):
    """The slow tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_unconfigure():
    if CACHE:
        shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Forget compiled programs when they are many: their memory maps count, and Linux allows a process 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 20_000:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _no_tensorboard():
    """Runs write no TensorBoard events, for which TensorFlow would be imported; `tensorboard` undoes this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "clu", None)
        yield


@pytest.fixture
def tensorboard(monkeypatch):
    """Runs of this test write TensorBoard events."""
    monkeypatch.delitem(sys.modules, "clu")


@pytest.fixture(scope="session")
def programs():
    """Starts the project's command lines: programs.run("--config=digits", ...) or programs.start(...)."""
    server = forks.Server()
    yield server
    server.close()
