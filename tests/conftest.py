"""Eight virtual CPU devices, float64, quick compilation and a cache folder of its own, before JAX starts."""

import os
import tempfile

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers share one
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="dualmcmc_jax-tests-")


def pytest_collection_modifyitems(items):
    """The slow tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
