"""What are the networks? Energies, generators and inference models, each a pair of pure functions, init and bind."""

from dualmcmc_jax.models.build import Net, Nets, Params, build

__all__ = ["Net", "Nets", "Params", "build"]
