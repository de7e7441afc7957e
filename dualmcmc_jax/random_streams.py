"""Which random streams exist? The list of all streams of seeded random numbers that are used outside training.

Training derives its random numbers from `jax.random.key(train.seed)` directly (see `training/state.py` and
`training/step.py`). Each other use of random numbers has its own stream. With equal seeds, the random numbers of each
use are therefore independent of training and of all other uses.
"""

import enum

import jax
import numpy as np


@enum.unique
class Stream(enum.IntEnum):
    """One number for each use of random numbers outside training. A number must not be reused for another purpose."""

    SAMPLES = 2023
    REVISIONS = 2024
    RECONSTRUCTION = 2025
    LONG_CHAINS = 2026
    MARGINAL_LIKELIHOOD = 2027
    VARIANCE_BIAS = 2028
    ACCEPTANCE = 2029
    PARTITION = 2030
    INTERPOLATION = 2031
    VARIANCE_BIAS_STARTS = 2032
    LIKELIHOOD = 2033
    RESTORATION = 2040
    RESTORATION_NOISE = 2041
    DETECTION = 2042


def key(seed: int, stream: Stream) -> jax.Array:
    """Return the PRNG key of a stream.

    Args:
      seed: the seed that the user chose.
      stream: the use for which the random numbers are drawn.
    """
    return jax.random.fold_in(jax.random.key(seed), int(stream))


def random_state(seed: int, stream: Stream) -> np.random.RandomState:
    """Return NumPy's random state of a stream, for random numbers that are drawn on the host.

    Args:
      seed: the seed that the user chose.
      stream: the use for which the random numbers are drawn.
    """
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, int(stream)))))
