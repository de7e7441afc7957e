"""Dual-MCMC teaching beside eight other methods, each trained for as long.

python -m dualmcmc_jax.study rivals --config=digits --seconds=60
"""

from dualmcmc_jax.configs import rivals
from dualmcmc_jax.study import Study, beats


def get_study(config):
    """The method itself, and every file of configs/rivals."""
    rivals.check_base(config)
    variants = {"dual-MCMC": config} | {name: rivals.changed(name, config) for name in rivals.names()}
    claims = [beats("dual-MCMC", name, metric) for metric in ("quality", "reconstruction") for name in rivals.names()]
    return Study(variants, tuple(claims))
