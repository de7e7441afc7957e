"""Studies: many runs by one command, and a table of them.

A file that defines a study imports what it needs from here, and none of this imports JAX.
"""

from dualmcmc_jax.study.definitions import Claim, Study, beats, changed

__all__ = ["Claim", "Study", "beats", "changed"]
