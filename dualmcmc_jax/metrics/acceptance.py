"""The Metropolis acceptance rate of Langevin steps, which measures their discretization error."""

import jax
import jax.numpy as jnp

from dualmcmc_jax.core.densities import squared_norm
from dualmcmc_jax.core.langevin import LogDensity


def rate(states: jax.Array, log_density: LogDensity, *, step_size: float) -> jax.Array:
    """Return the fraction of Langevin steps that a Metropolis correction would have accepted.

    The rate is the mean of

        min(1, p(y) q(x | y) / (p(x) q(y | x)))

    over all steps x -> y of all chains, with the proposal q(y | x) = N(y; x + s grad log p(x), 2 s I) (Roberts &
    Tweedie, 1996). A rate near 1 means that the steps are small compared with the scales of the density, so that the
    discretization error of the chains is small.

    Args:
      states: [num_steps + 1, B, ...], states before the first step and after each step.
      log_density: [B, ...] -> [B], in nats, up to a constant. The value of an example must not depend on the others.
      step_size: step size s of the chains, in squared units of x.

    Returns:
      The acceptance rate, a scalar between 0 and 1.
    """

    def value_and_score(x):
        score, log_p = jax.grad(lambda x: (log_density(x).sum(), log_density(x)), has_aux=True)(x)
        return log_p, x + step_size * score

    log_p, mean = jax.lax.map(value_and_score, states)
    forward = jax.vmap(squared_norm)(states[1:] - mean[:-1])
    backward = jax.vmap(squared_norm)(states[:-1] - mean[1:])
    log_ratio = log_p[1:] - log_p[:-1] + (forward - backward) / (4 * step_size)
    return jnp.mean(jnp.exp(jnp.minimum(log_ratio, 0.0)))
