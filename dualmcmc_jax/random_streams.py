"""All random streams of JAX in one place, so that no two of them can share a number.

Training draws from `jax.random.key(train.seed)` itself (see `training/state.py` and `training/step.py`). Everything
else draws from a stream of its own, so that equal seeds do not correlate with training or with each other.
"""

import enum

import jax


@enum.unique
class Stream(enum.IntEnum):
    """A number per use of randomness outside training. A number is never used again for another purpose."""

    SAMPLES = 2023
    REVISIONS = 2024
    RECONSTRUCTION = 2025
    LONG_CHAINS = 2026
    MARGINAL_LIKELIHOOD = 2027
    VARIANCE_BIAS = 2028
    ACCEPTANCE = 2029
    PARTITION = 2030
    INTERPOLATION = 2031


def key(seed: int, stream: Stream) -> jax.Array:
    """Return the key of a stream, given the seed that the user chose."""
    return jax.random.fold_in(jax.random.key(seed), int(stream))
