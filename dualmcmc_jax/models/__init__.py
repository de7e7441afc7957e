"""Networks as init / apply pairs."""

from dualmcmc_jax.models.build import Net, Nets, build

__all__ = ["Net", "Nets", "build"]
