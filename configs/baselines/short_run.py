"""Short-run EBM (Nijkamp et al. 2019, arXiv:1904.09770): no generator; 100 steps from noise, here N(0, I).

python -m dualmcmc_jax.main --config=configs/baselines/short_run.py:digits
"""

from dualmcmc_jax.configs.baselines import named, untaught


def baseline(config):
    """What differs, in a config."""
    untaught(config, "generator", "encoder")
    config.x_chain.update(init="noise", num_steps=100)
    config.evaluation.x_chain = ()
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return baseline(named(name))
