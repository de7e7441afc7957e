"""Which settings of a config do the chains use? Conversion of a config to arguments for `core.sampling`."""

import jax

from dualmcmc_jax.core.resampling import Resampling
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.models.build import Net, Nets

RESTORATION_STEPS = 100
"""Number of z-steps of a restoration. The z-chain starts far from the observed example, unlike that of training."""
RESTORATION_PROPOSALS = 32
"""Number of initial states of a restoration's z-chain that the prior proposes. The encoder proposes as many."""


def x_revision(config, nets: Nets, *, sampler: str | None = None) -> dict:
    """Return the keyword arguments of `core.sampling.revise_x` for the x-chain of a config.

    Args:
      config: the full config (uses x_chain, energy.temperature and train.unroll).
      nets: the networks of the config.
      sampler: the sampler to use instead of x_chain.sampler, or None.

    Returns:
      A dict of num_steps, step_size, sampler, the parameters of this sampler, clip_score, temperature and unroll.
    """
    chain = config.x_chain
    return _kernel(chain, sampler) | {
        "clip_score": chain.clip_score,
        "temperature": config.energy.temperature,
        "unroll": _unroll(config, chain.num_steps, nets.energy),
    }


def synthesis(config, nets: Nets, *, sampler: str | None = None) -> dict:
    """Return the keyword arguments of `core.sampling.synthesize` for a config.

    Args:
      config: the full config.
      nets: the networks of the config.
      sampler: the sampler to use instead of x_chain.sampler, or None.

    Returns:
      The dict of `x_revision`, plus init, start_std, resampling, latent_dim and dtype.
    """
    chain = config.x_chain
    resampling = Resampling(chain.resample, chain.proposals, chain.broad_proposals, chain.broad_std)
    return x_revision(config, nets, sampler=sampler) | {
        "resampling": resampling if chain.resample else None,
        "init": _init(config.x_chain),
        "start_std": config.x_chain.start_std,
        "latent_dim": config.generator.latent_dim,
        "dtype": param_dtype(config),
    }


def inference(config, nets: Nets, *, sampler: str | None = None) -> dict:
    """Return the keyword arguments of `core.sampling.infer` for the z-chain of a config.

    Args:
      config: the full config (uses z_chain, generator.variance and train.unroll).
      nets: the networks of the config.
      sampler: the sampler to use instead of z_chain.sampler, or None.

    Returns:
      A dict of num_steps, step_size, sampler, the parameters of this sampler, variance, init and unroll.
    """
    chain = config.z_chain
    return _kernel(chain, sampler) | {
        "variance": config.generator.variance,
        "init": _init(chain),
        "unroll": _unroll(config, chain.num_steps, nets.generator),
    }


def restoration(config, nets: Nets, *, sampler: str | None = None, z_sampler: str | None = None) -> dict:
    """Return the settings of `Model.restore` for a config.

    Args:
      config: the full config.
      nets: the networks of the config.
      sampler: the sampler of the x-chain to use instead of x_chain.sampler, or None.
      z_sampler: the sampler of the z-chain to use instead of z_chain.sampler, or None.

    Returns:
      The dict of `x_revision`, plus variance, proposals, and the settings of the z-chain with the prefix "z_".
    """
    z_chain = _kernel(config.z_chain, z_sampler) | {"num_steps": RESTORATION_STEPS}
    z_chain["unroll"] = _unroll(config, RESTORATION_STEPS, nets.generator)
    of_z = {f"z_{name}": value for name, value in z_chain.items()}
    scales = {"variance": config.generator.variance, "proposals": RESTORATION_PROPOSALS}
    return x_revision(config, nets, sampler=sampler) | scales | of_z


def param_dtype(config):
    """Return the dtype of parameters and chains: float64 if `train.compute_dtype` is "float64", otherwise float32."""
    return jax.numpy.float64 if config.train.compute_dtype == "float64" else jax.numpy.float32


def _kernel(chain, sampler: str | None) -> dict:
    """Return the settings of a chain's kernel: num_steps, step_size, sampler, and the parameters of this sampler."""
    sampler = sampler or chain.sampler
    settings = {"num_steps": chain.num_steps, "step_size": chain.step_size, "sampler": sampler}
    return settings | {name: chain[name] for name in SAMPLERS[sampler].parameters}


def _init(chain) -> str:
    """Return the argument `init` for chains without stored states. Persistent chains then start from noise."""
    return "noise" if chain.init == "persistent" else chain.init


def _unroll(config, num_steps: int, net: Net) -> int:
    """Return the number of chain steps per iteration of the compiled loop. It affects only speed.

    On a CPU, XLA runs convolutions inside a loop on a single thread. They are then up to ten times slower than outside
    of a loop.
    """
    unroll_all = jax.default_backend() == "cpu" and net.unroll_on_cpu
    return config.train.unroll or (max(1, num_steps) if unroll_all else 1)
