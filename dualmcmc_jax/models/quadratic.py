"""A quadratic energy, whose density is a Gaussian."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dualmcmc_jax.models.layers import linear


def energy(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the quadratic energy of a config.

    Args:
      config: the full config. Its energy.widths must be empty.
      dtype: has no effect. The layer always computes in the dtype of parameters and inputs.
      axis_name: not used.
    """
    widths = tuple(config.energy.widths)
    if widths:
        raise ValueError(f"energy.widths: found {widths}, expected () for a quadratic energy")
    return Energy(dtype)


class Energy(nn.Module):
    """The energy |A x + b|^2 / 2, x [B, ...] -> [B].

    An example is flattened to D numbers, and A is a matrix [D, D] that is initialized to the identity. The density
    exp(-energy / T) / Z is a Gaussian with covariance T (A^T A)^-1 and mean -A^-1 b.
    """

    dtype: Any

    is_gaussian = True

    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        identity = lambda key, shape, dtype=jnp.float32: jnp.eye(*shape, dtype=dtype)
        return 0.5 * jnp.sum(linear(x, x.shape[-1], kernel_init=identity, name="out") ** 2, axis=-1)

    def textbook_multiply_adds(self, input_shape):
        return math.prod(input_shape) ** 2
