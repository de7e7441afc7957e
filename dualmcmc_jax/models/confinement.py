"""A term of the energy that keeps chains near the range of pixels, [-1, 1]."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Bind = Callable[[Any], Callable[[jax.Array], jax.Array]]


def confined(bind: Bind, weight: float) -> Bind:
    """Add weight * sum_i max(|x_i| - 1, 0)^2 to an energy, where i runs over the pixels and channels of one image.

    The term is 0 for images in [-1, 1]. Outside, the EBM has Gaussian tails of variance T / (2 weight) in every pixel,
    where T is the temperature, if the energy of the network grows more slowly. The EBM then has a finite partition
    function.

    Args:
      bind: params -> (x [B, ...] -> energy [B]).
      weight: factor of the term, in units of energy per squared unit of x.

    Returns:
      The function `bind` of the sum.
    """

    def bind_confined(params):
        energy = bind(params)
        return lambda x: energy(x) + weight * _excess(x)

    return bind_confined


def _excess(x: jax.Array) -> jax.Array:
    """Return sum_i max(|x_i| - 1, 0)^2 of images, [B, ...] -> [B]."""
    return jnp.square(jnp.maximum(jnp.abs(x.reshape(len(x), -1)) - 1, 0)).sum(1)
