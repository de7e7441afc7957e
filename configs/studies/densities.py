"""One config on all 2-D densities of configs/toy2d.py, except the single Gaussian.

    python -m dualmcmc_jax.study densities --config=toy2d

Expected: the KL(data, EBM) of configs/toy2d.py.
"""

from dualmcmc_jax.study import Study, changed

NAMES = ("8gaussians", "25gaussians", "rings", "checkerboard", "moons", "spirals")


def get_study(config):
    """Return the config on each density."""
    return Study({name: changed(config, data__source=f"toy2d:{name}") for name in NAMES})
