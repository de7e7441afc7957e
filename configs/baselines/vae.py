"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114): no MCMC and no EBM; the ELBO alone.

python -m dualmcmc_jax.main --config=configs/baselines/vae.py:digits
"""

from dualmcmc_jax.configs.baselines import NO_LOSS, autoencoder, named, without_energy


def baseline(config):
    """What differs, in a config."""
    without_energy(config)
    config.loss.generator.update(NO_LOSS)
    config.loss.encoder.update(NO_LOSS)
    autoencoder(config)
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return baseline(named(name))
