"""Short-run EBM (Nijkamp et al. 2019, arXiv:1904.09770): no generator; chains of 100 steps start at noise.

python -m dualmcmc_jax.main --config=configs/rivals/short_run.py:digits
"""

from dualmcmc_jax.configs.rivals import NO_LOSS, named


def rival(config):
    """What differs, in a config."""
    config.x_chain.update(init="noise", num_steps=100)
    config.loss.generator.update(NO_LOSS)
    config.loss.encoder.update(NO_LOSS)
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return rival(named(name))
