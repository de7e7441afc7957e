"""Dual-MCMC teaching beside eight other methods, each trained for as long.

python -m dualmcmc_jax.study baselines --config=digits --seconds=60
"""

from dualmcmc_jax.configs import baselines
from dualmcmc_jax.study import Study, beats


def get_study(config):
    """The method itself, and every file of configs/baselines."""
    baselines.check_base(config)
    variants = {"dual-MCMC": config} | {name: baselines.changed(name, config) for name in baselines.names()}
    claims = [
        beats("dual-MCMC", name, metric) for metric in ("quality", "reconstruction") for name in baselines.names()
    ]
    return Study(variants, tuple(claims))
