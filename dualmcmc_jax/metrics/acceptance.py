"""The acceptance rate of Langevin steps under a Metropolis correction."""

import jax
import jax.numpy as jnp

from dualmcmc_jax.core.densities import squared_norm
from dualmcmc_jax.core.langevin import LogDensity


def rate(states: jax.Array, log_density: LogDensity, *, step_size: float) -> jax.Array:
    """Return the share of the steps of chains that a Metropolis correction would have accepted.

    The share is the mean of min(1, p(y) q(x | y) / (p(x) q(y | x))) over all steps x -> y, with the proposal
    q(y | x) = N(y; x + s grad log p(x), 2 s I) (Roberts & Tweedie 1996). It is near 1 if the steps are small against
    the scales of the density, and then the chains are nearly exact.

    Args:
      states: [num_steps + 1, B, ...], the states before the first step and after each step.
      log_density: [B, ...] -> [B], of examples that do not depend on each other.
      step_size: s.
    """

    def value_and_score(x):
        score, log_p = jax.grad(lambda x: (log_density(x).sum(), log_density(x)), has_aux=True)(x)
        return log_p, x + step_size * score

    log_p, mean = jax.lax.map(value_and_score, states)
    forth = jax.vmap(squared_norm)(states[1:] - mean[:-1])
    back = jax.vmap(squared_norm)(states[:-1] - mean[1:])
    log_ratio = log_p[1:] - log_p[:-1] + (forth - back) / (4 * step_size)
    return jnp.mean(jnp.exp(jnp.minimum(log_ratio, 0.0)))
