"""The generator's marginal likelihood p_theta(x), which is the integral of p_theta(x, z) over latents z."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax.core import densities


def quadrature(
    decode: densities.Decode, x: jax.Array, *, variance: float, num_points: int, half_width: float = 6.0
) -> jax.Array:
    """Compute log p_theta(x) of a generator with two latents by quadrature over a grid of latents.

    Memory is proportional to B times num_points.

    Args:
      decode: z [B, 2] -> g(z) [B, ...].
      x: [B, ...], examples.
      variance: variance sigma^2 of p(x | z), in squared units of x.
      num_points: number of grid points along each side of the square.
      half_width: the grid covers the square [-half_width, half_width]^2 of latents.

    Returns:
      log p_theta(x) [B] in nats.
    """
    dtype = jnp.result_type(x.dtype, jnp.float32)
    side = 2 * half_width / num_points
    axis = jnp.asarray(-half_width + side * (np.arange(num_points) + 0.5), dtype)  # midpoints of cells
    x = x.reshape(len(x), -1).astype(dtype)

    def add(total, first):
        z = jnp.stack([jnp.full_like(axis, first), axis], axis=-1)
        mean = decode(z).reshape(num_points, -1).astype(dtype)
        square = jnp.sum((x[:, None] - mean) ** 2, axis=-1)  # [B, num_points]
        normalizer = 0.5 * mean.shape[-1] * (densities.LOG_2PI + math.log(variance))
        terms = densities.log_prior(z) - square / (2 * variance) - normalizer
        return jnp.logaddexp(total, jax.nn.logsumexp(terms, axis=-1)), None

    return jax.lax.scan(add, jnp.full(len(x), -jnp.inf, dtype), axis)[0] + 2 * math.log(side)


TOLERANCE = 0.01
"""Largest difference, in nats, between the values of an integral on two grids that agree."""
MOST_POINTS = 4800
"""Number of points along each side of the finest grid. It resolves generators of slope 80 at sigma 0.2."""


def refined(log_integral: Callable[[int], jax.Array], *, most_points: int = MOST_POINTS) -> tuple[np.ndarray, float]:
    """Compute integrals on grids of 300, 600, 1,200, ... points along each side, until two successive grids agree.

    A grid is too coarse if the generator moves by more than about sigma between neighboring points.

    Args:
      log_integral: number of points along each side -> logs of the integrals [B] in nats, such as `quadrature`.
      most_points: the largest number of points along each side.

    Returns:
      The logs of the integrals [B] on the finest grid that was used, and the largest difference from the grid before
      it. The difference is above `TOLERANCE`, or NaN, if the last two grids do not agree.
    """
    num_points, change, values = 300, math.inf, np.asarray(log_integral(300))
    while change > TOLERANCE and 2 * num_points <= most_points:
        num_points, coarse = 2 * num_points, values
        values = np.asarray(log_integral(num_points))
        change = float(np.max(np.abs(values - coarse)))
    return values, change
