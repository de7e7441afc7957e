"""Divergence Triangle (Han et al. 2019, arXiv:1812.10907): KL(Q, P) + KL(P, Pi) - KL(Q, Pi), without MCMC.

    python -m dualmcmc_jax.main --config=configs/baselines/divergence_triangle.py:digits

The generator and the inference model are trained by the ELBO and by the energy of generated samples. The energy is
trained on generated samples without revision. Spectral norm bounds the slope of the energy, because without chains
nothing else keeps the energy from becoming too steep.

Measured on digits (see configs/baselines/__init__.py): Frechet distance 2.31 ± 0.30, SVC score 2.63 ± 0.18,
reconstruction MSE 0.0193, AUROC 0.946. The reconstruction is better than that of dual-MCMC.
"""

from dualmcmc_jax.configs.baselines import autoencoder, named, without_chains


def baseline(config):
    """Return `config`, changed in place to this method."""
    without_chains(config)
    autoencoder(config)
    scale = 2 * config.generator.variance  # the factor of the ELBO loss
    config.loss.generated.update(energy_weight=scale, posterior_weight=scale)
    return config


def get_config(name="digits"):
    """Return the config `name` of configs/, changed to this method."""
    return baseline(named(name))
