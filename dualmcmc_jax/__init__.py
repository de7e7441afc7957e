"""Energy-based models taught by dual MCMC: a JAX implementation of Cui & Han (NeurIPS 2023)."""

__version__ = "0.1.0"
