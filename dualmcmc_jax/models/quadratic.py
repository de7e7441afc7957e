"""The energy of a Gaussian."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dualmcmc_jax.models.layers import linear


def energy(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the quadratic energy of a config, which has no hidden layers."""
    widths = tuple(config.energy.widths)
    if widths:
        raise ValueError(f"energy.widths: found {widths}, expected () for a quadratic energy")
    return Energy(dtype)


class Energy(nn.Module):
    """x [B, ...] of D numbers -> energy |A x + b|^2 / 2 [B], A [D, D] at first the identity.

    exp(-energy / T) is a Gaussian of covariance T (A^T A)^-1 and mean -A^-1 b.
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
