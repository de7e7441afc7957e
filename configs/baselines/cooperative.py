"""Cooperative learning (Xie et al. 2018, arXiv:1609.09408): the generator learns from revised samples, never from data.

The inference model, which the paper does not have, learns from the same pairs.

python -m dualmcmc_jax.main --config=configs/baselines/cooperative.py:digits
"""

from dualmcmc_jax.configs.baselines import named


def baseline(config):
    """What differs, in a config."""
    for name in ("generator", "encoder"):
        config.loss[name].update(data_weight=0.0, model_weight=1.0)
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return baseline(named(name))
