"""Divergence Triangle (Han et al. 2019, arXiv:1812.10907): no MCMC; KL(Q, P) + KL(P, Pi) - KL(Q, Pi).

The generator and the inference model learn by the ELBO and from the energy of generated samples, the energy from those
samples as they are. The energy needs a bound on its slope, here by spectral norm, when no chain can show where it is
too steep.

python -m dualmcmc_jax.main --config=configs/baselines/divergence_triangle.py:digits
"""

from dualmcmc_jax.configs.baselines import autoencoder, named, without_chains


def baseline(config):
    """What differs, in a config."""
    without_chains(config)
    autoencoder(config)
    scale = 2 * config.generator.variance  # that of the ELBO
    config.loss.generated.update(energy_weight=scale, posterior_weight=scale)
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return baseline(named(name))
