"""Settings of JAX that must be made before JAX looks for devices."""

import os

import jax

from dualmcmc_jax.data import cache
from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.runtime import memory


def check_devices() -> None:
    """Raise ValueError unless JAX has a device. If there are several processes, call this once they are connected."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that one of the platforms can be used
        if memory.ran_out(error):
            raise
        found = f"{jax.config.jax_platforms or 'no value'} ({first_line(error)})"
        raise ValueError(f"JAX_PLATFORMS: found {found}, expected a platform with a device, such as cpu") from error


def start(config) -> None:
    """Set the arithmetic of the config, the random number generator, and the folder that caches compiled programs.

    The generator is the same whatever the environment says, because a resumed run must continue its random numbers.
    The folder is programs/ of the cache folder, unless JAX_COMPILATION_CACHE_DIR names another one.
    """
    if config.train.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    if config.train.compute_dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    if config.train.compute_dtype == "tensorfloat32":
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    jax.config.update("jax_default_prng_impl", "threefry2x32")
    jax.config.update("jax_threefry_partitionable", True)
    if not jax.config.jax_compilation_cache_dir:
        folder = cache.writable_folder("programs")
        jax.config.update("jax_compilation_cache_dir", folder and str(folder))
