"""Networks as init / apply pairs."""

from dualmcmc_jax.models.build import Net, Nets, Params, build

__all__ = ["Net", "Nets", "Params", "build"]
