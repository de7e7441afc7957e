"""Every known density in the plane.

python -m dualmcmc_jax.study densities --config=toy2d
"""

from dualmcmc_jax.study import Study, changed

NAMES = ("8gaussians", "25gaussians", "rings", "checkerboard", "moons", "spirals")


def get_study(config):
    """The same config on each."""
    return Study({name: changed(config, data__source=f"toy2d:{name}") for name in NAMES})
