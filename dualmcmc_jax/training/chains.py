"""The chains of a config, as keyword arguments of the functions of `core.sampling`."""

import jax

from dualmcmc_jax.models.build import Net, Nets


def x_revision(config, nets: Nets) -> dict:
    """Return the keyword arguments of `revise_x` that a config holds."""
    chain = config.x_chain
    return {
        "num_steps": chain.num_steps,
        "step_size": chain.step_size,
        "sampler": chain.sampler,
        "temperature": config.energy.temperature,
        "unroll": _unroll(config, chain.num_steps, nets.energy),
    }


def synthesis(config, nets: Nets) -> dict:
    """Return the keyword arguments of `synthesize` that a config holds."""
    return x_revision(config, nets) | {
        "init": _init(config.x_chain),
        "start_std": config.x_chain.start_std,
        "latent_dim": config.generator.latent_dim,
        "dtype": param_dtype(config),
    }


def inference(config, nets: Nets) -> dict:
    """Return the keyword arguments of `infer` that a config holds."""
    chain = config.z_chain
    return {
        "num_steps": chain.num_steps,
        "step_size": chain.step_size,
        "sampler": chain.sampler,
        "variance": config.generator.variance,
        "init": _init(chain),
        "unroll": _unroll(config, chain.num_steps, nets.generator),
    }


def param_dtype(config):
    """Return the dtype of parameters and chains: float64 if `train.compute_dtype` asks for it, else float32."""
    return jax.numpy.float64 if config.train.compute_dtype == "float64" else jax.numpy.float32


def _init(chain) -> str:
    """Return where a new chain starts. A persistent chain that has no previous state starts from noise."""
    return "noise" if chain.init == "persistent" else chain.init


def _unroll(config, num_steps: int, net: Net) -> int:
    """Return how many chain steps one turn of the compiled loop makes; it changes speed only.

    On a CPU, XLA runs the convolutions of a loop on one thread, which is up to ten times slower than without the loop.
    """
    unroll_all = jax.default_backend() == "cpu" and net.unroll_on_cpu
    return config.train.unroll or (max(1, num_steps) if unroll_all else 1)
