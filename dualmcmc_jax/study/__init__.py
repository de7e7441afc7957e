"""Studies: one command that trains and evaluates many configs and compares them in one table.

A file that defines a study imports everything that it needs from this package. Importing this package does not import
JAX.
"""

from dualmcmc_jax.study.definitions import Claim, Study, beats, changed

__all__ = ["Claim", "Study", "beats", "changed"]
