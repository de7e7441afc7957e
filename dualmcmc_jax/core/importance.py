"""Importance sampling of the generator's marginal likelihood p_theta(x), with the inference model as the proposal."""

import math

import jax
import jax.numpy as jnp

from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import normal


def log_marginal(
    keys: jax.Array,
    encode: densities.Encode,
    decode: densities.Decode,
    x: jax.Array,
    *,
    variance: float,
    num_samples: int,
) -> tuple[jax.Array, jax.Array]:
    """Estimate log p_theta(x) = log E_q[p_theta(x, z) / q_phi(z | x)] by importance sampling.

    The estimate is the log of the mean importance weight of latents drawn from the inference model q_phi(z | x). On
    average the estimate is at most the true value, and it increases with the number of latents (Burda et al., 2016).

    Args:
      keys: [B] keys, one per example.
      encode: x [B, ...] -> (mean [B, d], log_var [B, d]) of q_phi(z | x).
      decode: z [B, d] -> g(z) [B, ...].
      x: [B, ...], examples.
      variance: variance sigma^2 of p(x | z), in squared units of x.
      num_samples: number of latents per example.

    Returns:
      Estimates of log p_theta(x) [B] in nats, and the effective sample sizes (sum w)^2 / sum w^2 [B] of the importance
      weights w, between 1 and num_samples.
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
