"""Short-run EBM (Nijkamp et al. 2019, arXiv:1904.09770): an EBM whose chains take 100 steps from noise, no generator.

    python -m dualmcmc_jax.main --config=configs/baselines/short_run.py:digits

The noise is drawn from N(0, I).

Measured on digits (see configs/baselines/__init__.py): Frechet distance 0.862 ± 0.036, SVC score 4.21 ± 0.42,
AUROC 0.884.
"""

from dualmcmc_jax.configs.baselines import named, untrained


def baseline(config):
    """Return `config`, changed in place to this method."""
    untrained(config, "generator", "encoder")
    config.x_chain.update(init="noise", num_steps=100)
    config.evaluation.x_chain = ()
    return config


def get_config(name="digits"):
    """Return the config `name` of configs/, changed to this method."""
    return baseline(named(name))
