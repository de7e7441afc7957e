"""Cooperative learning (Xie et al. 2018, arXiv:1609.09408).

    python -m dualmcmc_jax.main --config=configs/baselines/cooperative.py:digits

The generator is trained on revised samples only, never on data. The paper has no inference model. Here, an inference
model is trained on the same pairs as the generator.

Measured on digits (see configs/baselines/__init__.py): Frechet distance 0.255 ± 0.033, SVC score 6.69 ± 0.10,
reconstruction MSE 0.0686, AUROC 0.980. The SVC score is better than that of dual-MCMC.
"""

from dualmcmc_jax.configs.baselines import named


def baseline(config):
    """Return `config`, changed in place to this method."""
    for name in ("generator", "encoder"):
        config.loss[name].update(data_weight=0.0, model_weight=1.0)
    return config


def get_config(name="digits"):
    """Return the config `name` of configs/, changed to this method."""
    return baseline(named(name))
