"""IGEBM (Du & Mordatch 2019, arXiv:1903.08689): no generator; chains go on from a replay buffer, 5% anew from noise.

The buffer's chains take turns, noise is N(0, I), and energies are not penalised. Samples for evaluation start at noise
and take ten times as many steps, because the buffer stays behind.

python -m dualmcmc_jax.main --config=configs/baselines/persistent.py:digits
"""

from dualmcmc_jax.configs.baselines import named, untaught


def baseline(config):
    """What differs, in a config."""
    config.x_chain.update(init="persistent", num_chains=10_000)
    untaught(config, "generator", "encoder")
    chain = config.x_chain
    config.evaluation.x_chain = (10 * chain.num_steps, chain.step_size, config.energy.temperature)
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return baseline(named(name))
