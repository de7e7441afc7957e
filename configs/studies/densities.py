"""Is the density of the EBM true? Dual-MCMC with and without resampling, and two baselines, on all 2-D densities.

    python -m dualmcmc_jax.study densities --config=toy2d --seconds=60 --jobs=2

The methods without resampling run chains of 30 steps of size 0.005, and their energy has the learning rate 0.001.
IGEBM cannot resample, because its chains start at stored states, which have no density.
"""

from dualmcmc_jax.configs import baselines
from dualmcmc_jax.study import Study, beats, changed

DENSITIES = ("8gaussians", "rings", "moons", "checkerboard", "25gaussians", "spirals", "gaussian")
RESAMPLED = "dual-MCMC, resampling"


def get_study(config):
    """Return every method on every density. The config must resample the initial states."""
    if not config.x_chain.resample:
        raise ValueError("x_chain.resample: found 0.0, expected a positive number, as in --config=toy2d")
    config = changed(config, evaluation__num_samples=2000, evaluation__num_neighbours=1000)  # densities need no samples
    plain = changed(
        config,
        x_chain__resample=0.0,
        x_chain__num_steps=30,
        x_chain__step_size=0.005,
        optimizer__energy__learning_rate=1e-3,
    )
    methods = {
        RESAMPLED: config,
        "dual-MCMC": changed(plain, x_chain__start_std=0.0),
        "cooperative, resampling": baselines.changed("cooperative", config),
        "IGEBM": baselines.changed("persistent", plain),
    }
    variants = {
        f"{density}: {method}": changed(variant, data__source=f"toy2d:{density}")
        for density in DENSITIES
        for method, variant in methods.items()
    }
    claims = [
        beats(f"{density}: {RESAMPLED}", f"{density}: {method}")
        for density in DENSITIES
        for method in methods
        if method != RESAMPLED
    ]
    return Study(variants, tuple(claims))
