"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114): the ELBO, without MCMC and without an EBM.

    python -m dualmcmc_jax.main --config=configs/baselines/vae.py:digits

Measured on digits (see configs/baselines/__init__.py): Frechet distance 1.35 ± 0.09, SVC score 3.23 ± 0.14,
reconstruction MSE 0.0182. The reconstruction is better than that of dual-MCMC.
"""

from dualmcmc_jax.configs.baselines import NO_LOSS, autoencoder, named, without_energy


def baseline(config):
    """Return `config`, changed in place to this method."""
    without_energy(config)
    config.loss.generator.update(NO_LOSS)
    config.loss.encoder.update(NO_LOSS)
    autoencoder(config)
    return config


def get_config(name="digits"):
    """Return the config `name` of configs/, changed to this method."""
    return baseline(named(name))
