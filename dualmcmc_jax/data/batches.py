"""Batches of training examples. Batch t is a pure function of (seed, t), so resuming needs only the step."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Batch(NamedTuple):
    """A batch of training examples.

    Attributes:
      x: [B, ...], uint8 images or float vectors.
      example: [B], the indices of the examples in the training data.
    """

    x: Any
    example: Any


def batch_indices(seed: int, step: int, *, num_examples: int, batch_size: int) -> np.ndarray:
    """Return the indices [batch_size] of the examples of batch `step`.

    Each epoch is a new permutation of the examples. The last num_examples % batch_size examples of the permutation are
    not used in that epoch. NumPy's compatibility policy freezes RandomState and SeedSequence, so every version of NumPy
    returns the same indices.
    """
    epoch, position = divmod(step, num_examples // batch_size)
    return _order(seed, epoch, num_examples)[position * batch_size : (position + 1) * batch_size]


def flips(seed: int, step: int, *, batch_size: int) -> np.ndarray:
    """Return which examples of batch `step` to mirror: [batch_size] bool, each True with probability 1/2."""
    return _random(seed, step, 1).random_sample(batch_size) < 0.5


def share(
    step: int,
    *,
    train: np.ndarray,
    seed: int,
    batch_size: int,
    flip: bool,
    process_index: int,
    process_count: int,
    local_device_count: int,
) -> Batch:
    """Return the share of batch `step` that one process computes, split among its devices.

    Args:
      step: index of the batch, from 0.
      train: all training examples, uint8 images [N, H, W, C] or float vectors [N, d].
      seed: `train.seed`.
      batch_size: number of examples of the whole batch, over all devices of all processes.
      flip: whether to mirror each image horizontally with probability 1/2.
      process_index: index of the process, from 0.
      process_count: number of processes.
      local_device_count: number of devices of each process.

    Returns:
      The batch with x [local devices, B, ...] and example int32 [local devices, B].
    """
    position = np.arange(batch_size).reshape(process_count, local_device_count, -1)[process_index]
    example = batch_indices(seed, step, num_examples=len(train), batch_size=batch_size)[position]
    x = train[example]
    if flip:
        mirrored = flips(seed, step, batch_size=batch_size)[position]
        x[mirrored] = x[mirrored][:, :, ::-1]
    return Batch(x, example.astype(np.int32))


def subset(num_examples: int, num: int) -> np.ndarray:
    """Return the indices of a fixed random subset of `num` examples, or of all examples if there are fewer.

    A smaller subset is a prefix of a larger one. The subset is random because data sets are often sorted by class.
    """
    return _order(0, 0, num_examples)[:num]


def prefetch(make: Callable[[int], Any], steps: range) -> Iterator[Any]:
    """Yield make(step) for each step in order. A background thread computes up to two steps ahead."""
    with ThreadPoolExecutor(1) as thread:
        ahead = deque()
        for step in steps:
            ahead.append(thread.submit(make, step))
            if len(ahead) > 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    return _random(seed, epoch).permutation(num_examples)


def _random(*entropy: int) -> np.random.RandomState:
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(entropy)))


def to_float(x: jax.Array, dtype) -> jax.Array:
    """Convert examples to `dtype`, and scale uint8 images to [-1, 1]. Vectors are not scaled."""
    return x.astype(dtype) / 127.5 - 1 if x.dtype == jnp.uint8 else x.astype(dtype)


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Convert images in [-1, 1] to uint8. Values outside this range are clipped, and NaN becomes gray."""
    return np.round((np.nan_to_num(np.clip(x, -1, 1)) + 1) * 127.5).astype(np.uint8)
