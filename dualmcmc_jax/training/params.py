from dualmcmc_jax.models.build import Params  # noqa: F401
