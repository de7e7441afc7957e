"""scikit-learn's digits with an energy whose long chains still look like digits.

    python -m dualmcmc_jax.main --config=configs/digits_long_chains.py

Two fields differ from the config `digits`: a small gradient penalty, and a term that keeps pixels near [-1, 1]
(docs/stability.md).
"""

from dualmcmc_jax.configs import digits


def get_config():
    """Return `digits` with a gradient penalty and a confinement of the energy."""
    config = digits.get_config()
    config.energy.confinement = 1.0
    config.loss.gradient_penalty.weight = 0.1
    return config
