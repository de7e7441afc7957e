"""How do images change along a path between two latents (Figure 4 of the paper)?"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax import random_streams
from dualmcmc_jax.core.langevin import chain_keys, normal
from dualmcmc_jax.data.batches import to_float, to_uint8
from dualmcmc_jax.evaluation.trajectories import group_of
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import figures


class Interpolation(NamedTuple):
    """Interpolations between pairs of latents, one pair per row: uint8 images [rows, columns, H, W, C].

    Attributes:
      samples: decoded points between two draws from the prior, after the x-revision.
      reconstructions: decoded points between the latents that the z-revision infers for two held-out images. The first
        and the last column show the held-out images themselves.
    """

    samples: np.ndarray
    reconstructions: np.ndarray


def interpolate(
    model: Model, held_out: np.ndarray, *, seed: int, num_rows: int = 6, num_points: int = 8
) -> Interpolation:
    """Decode points on the arcs between pairs of latents.

    Each point is decoded in a batch of its own, whose other latents are drawn from the prior. The batch statistics are
    then those of usual samples, and the points do not influence each other.

    Args:
      model: a model of images.
      held_out: [N, H, W, C], held-out uint8 images.
      seed: seed of latents and chains.
      num_rows: number of pairs of latents, at most half the model's group size. A larger number is reduced.
      num_points: number of points per pair, including both ends.

    Returns:
      The interpolations. A row of `reconstructions` has num_points + 2 images.
    """
    x = group_of(held_out, model.group_size)
    rows = min(num_rows, len(x) // 2) or 1
    key = random_streams.key(seed, Stream.INTERPOLATION)
    images = jax.device_get(_interpolate(model, key, x, rows, num_points))
    samples, decoded = (to_uint8(y).reshape(rows, num_points, *y.shape[1:]) for y in images)
    ends = x[np.arange(2 * rows) % len(x)].reshape(2, rows, 1, *x.shape[1:])
    return Interpolation(samples, np.concatenate([ends[0], decoded, ends[1]], axis=1))


def figure(interpolation: Interpolation) -> Figure:
    """Draw the interpolations of samples and of reconstructions side by side."""
    widths = [rows.shape[1] for rows in interpolation]
    size = (11, 0.8 + 0.58 * len(interpolation.samples))
    figure, axes = figures.plt.subplots(1, 2, figsize=size, layout="constrained", width_ratios=widths)
    figures.show(axes[0], figures.tile(interpolation.samples), "between two latents from the prior, revised")
    title = "between the latents of two held-out images (first and last column)"
    figures.show(axes[1], figures.tile(interpolation.reconstructions), title)
    return figure


def arc(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Return points on the arcs from a to b: spherical interpolation of directions, linear interpolation of norms.

    Points on the straight line between two draws from the prior would have a smaller norm than draws from the prior.

    Args:
      a: [B, d], first latents.
      b: [B, d], second latents.
      t: [K], positions on the arc, from 0 at a to 1 at b.

    Returns:
      The points [B, K, d].
    """
    length = lambda z: jnp.linalg.norm(z, axis=-1, keepdims=True)
    unit_a, unit_b = a / length(a), b / length(b)
    angle = jnp.arccos(jnp.clip(jnp.sum(unit_a * unit_b, -1, keepdims=True), -0.9999, 0.9999))[:, None]
    t = t[:, None]
    direction = (jnp.sin((1 - t) * angle) * unit_a[:, None] + jnp.sin(t * angle) * unit_b[:, None]) / jnp.sin(angle)
    return direction * ((1 - t) * length(a)[:, None] + t * length(b)[:, None])


@partial(jax.jit, static_argnums=(3, 4))
def _interpolate(model, key, x, rows, num_points):
    """Return interpolated samples after the x-revision, and reconstructions: [rows * num_points, ...] each."""
    bound, size, dtype = model.bound(), model.group_size, model.dtype
    *keys, revision_key = jax.random.split(key, 4)
    prior_keys, other_keys, data_keys = (chain_keys(k, jnp.arange(size)) for k in keys)
    prior, others = (normal(k, (model.config.generator.latent_dim,), dtype) for k in (prior_keys, other_keys))
    decode = lambda z: jax.lax.map(lambda point: bound.decode(jnp.concatenate([point[None], others[1:]]))[0], z)
    inferred = bound.infer(data_keys, to_float(x, dtype)).z

    def decode_arcs(z):
        ends = z[jnp.arange(2 * rows) % size].reshape(2, rows, -1)
        points = arc(*ends, jnp.linspace(0, 1, num_points, dtype=dtype))
        return decode(points.reshape(rows * num_points, -1))

    generated = decode_arcs(prior)
    revised, _ = bound.revise_x(chain_keys(revision_key, jnp.arange(len(generated))), generated)
    return revised, decode_arcs(inferred)
