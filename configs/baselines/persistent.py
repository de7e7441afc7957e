"""IGEBM (Du & Mordatch 2019, arXiv:1903.08689): an EBM with persistent chains from a replay buffer and no generator.

    python -m dualmcmc_jax.main --config=configs/baselines/persistent.py:digits

In each update, 5% of the continued chains restart from noise. This implementation differs from the paper in three
ways: the chains of the buffer are continued in a fixed order, the noise is N(0, I), and the magnitude of the energy is
penalized only if loss.energy_penalty.weight is set. Evaluation does not use the buffer. Its chains start at noise and
take ten times as many steps as in training.

Measured on digits (see configs/baselines/__init__.py): Frechet distance 0.580 ± 0.010, SVC score 5.89 ± 0.10,
AUROC 0.938.
"""

from dualmcmc_jax.configs.baselines import named, untrained


def baseline(config):
    """Return `config`, changed in place to this method."""
    config.x_chain.update(init="persistent", num_chains=10_000)
    untrained(config, "generator", "encoder")
    chain = config.x_chain
    config.evaluation.x_chain = (10 * chain.num_steps, chain.step_size, config.energy.temperature)
    return config


def get_config(name="digits"):
    """Return the config `name` of configs/, changed to this method."""
    return baseline(named(name))
