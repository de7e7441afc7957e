"""The generator's marginal likelihood p_theta(x), an integral over latents."""

import math

import jax
import jax.numpy as jnp

from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import normal
from dualmcmc_jax.metrics.quadrature import grid


def importance(
    keys: jax.Array,
    encode: densities.Encode,
    decode: densities.Decode,
    x: jax.Array,
    *,
    variance: float,
    num_samples: int,
) -> tuple[jax.Array, jax.Array]:
    """Estimate log p_theta(x) = log E_q[p_theta(x, z) / q_phi(z | x)] from draws of the inference model.

    Args:
      keys: [B] keys, one per example.
      encode: x -> (mean, log_var) of q_phi(z | x).
      decode: z -> g(z).
      x: [B, ...].
      variance: sigma^2 of p(x | z).
      num_samples: latents per example. The estimate of fewer latents is lower on average.

    Returns:
      log p_theta(x) [B] in nats, on average at most the truth, and the effective sample size
      (sum w)^2 / sum w^2 [B], from 1 to num_samples.
    """
    mean, log_var = encode(x)

    def step(sums, i):
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, i), mean.shape[1:], mean.dtype)
        log_q = densities.log_prior(noise) - 0.5 * jnp.sum(log_var, axis=-1)
        log_w = densities.log_joint(x, mean + jnp.exp(0.5 * log_var) * noise, decode, variance=variance) - log_q
        return (jnp.logaddexp(sums[0], log_w), jnp.logaddexp(sums[1], 2 * log_w)), None

    start = (jnp.full(len(x), -jnp.inf, x.dtype),) * 2
    (log_sum, log_squares), _ = jax.lax.scan(step, start, jnp.arange(num_samples))
    return log_sum - math.log(num_samples), jnp.exp(2 * log_sum - log_squares)


def quadrature(
    decode: densities.Decode, x: jax.Array, *, variance: float, half_width: float = 6.0, num_points: int = 600
) -> jax.Array:
    """Integrate log p_theta(x) of a generator with two latents over a grid of z.

    Args:
      decode: z [B, 2] -> g(z) [B, ...].
      x: [B, ...].
      variance: sigma^2 of p(x | z).
      half_width: half the width of the square of latents.
      num_points: grid points along each side of the square.

    Returns:
      log p_theta(x) in nats: [B]. Memory grows with B times num_points.
    """
    cells = grid(half_width, num_points)
    z = jnp.asarray(cells.x, jnp.result_type(x.dtype, jnp.float32)).reshape(num_points, num_points, 2)
    x = x.reshape(len(x), -1).astype(z.dtype)

    def add(total, z):
        log_prior = densities.log_prior(z)
        mean = decode(z).reshape(num_points, -1)
        square = jnp.sum((x[:, None] - mean) ** 2, axis=-1)  # [B, num_points]
        normalizer = 0.5 * mean.shape[-1] * (densities.LOG_2PI + math.log(variance))
        terms = log_prior - square / (2 * variance) - normalizer
        return jnp.logaddexp(total, jax.nn.logsumexp(terms, axis=-1)), None

    return jax.lax.scan(add, jnp.full(len(x), -jnp.inf, z.dtype), z)[0] + math.log(cells.area)
