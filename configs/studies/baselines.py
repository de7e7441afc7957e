"""Dual-MCMC and all baseline methods, each trained for the same time.

    python -m dualmcmc_jax.study baselines --config=digits --seconds=60

Expected: each file of configs/baselines states what was measured with --seconds=30. Dual-MCMC has the best Frechet
distance. Cooperative learning has the best SVC score, and VAE and Divergence Triangle reconstruct better. The
hyperparameters were not tuned for the baselines.
"""

from dualmcmc_jax.configs import baselines
from dualmcmc_jax.study import Study, beats


def get_study(config):
    """Return dual-MCMC and every method of configs/baselines."""
    baselines.check_base(config)
    variants = {"dual-MCMC": config} | {name: baselines.changed(name, config) for name in baselines.names()}
    claims = [
        beats("dual-MCMC", name, metric) for metric in ("quality", "reconstruction") for name in baselines.names()
    ]
    return Study(variants, tuple(claims))
