"""The Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996), whose chains have exactly the target density."""

import math

import jax

from dualmcmc_jax.core.densities import squared_norm
from dualmcmc_jax.core.langevin import LogDensity, Trace, normal, scan_steps, summed
from dualmcmc_jax.core.metropolis import accept


def mala(
    keys: jax.Array,
    x0: jax.Array,
    log_density: LogDensity,
    *,
    num_steps: int,
    step_size: float,
    keep_every: int | None = None,
    unroll: int = 1,
) -> tuple[jax.Array, Trace]:
    """Run a batch of Metropolis-adjusted Langevin chains.

    Each step proposes y = x + s grad log p(x) + sqrt(2 s) N(0, I), as `langevin` does, and accepts y with probability

        min(1, p(y) q(x | y) / (p(x) q(y | x))),    q(y | x) = N(y; x + s grad log p(x), 2 s I).

    If y is rejected, the chain stays at x. Unlike unadjusted Langevin chains, the chains have exactly the density p in
    the limit, for any step size. log_density must treat the examples of a batch independently.

    Args:
      keys: [B] keys, one per chain.
      x0: [B, ...] initial states.
      log_density: [B, ...] -> [B] log-densities in nats, up to a constant.
      num_steps: number of steps, at least 0. With 0 steps the final states are x0.
      step_size: s, in squared units of x.
      keep_every: number of steps between the states that the trace keeps. None: keep no states.
      unroll: steps per iteration of the compiled loop. It affects only speed.

    Returns:
      The final states [B, ...] and the `Trace` of the chains.
    """
    score_and_log_p = jax.grad(summed(log_density), has_aux=True)

    def step(carry, t):
        x, score, log_p = carry
        fold_in = jax.vmap(jax.random.fold_in, (0, None))
        step_keys = fold_in(keys, t)
        noise = normal(fold_in(step_keys, 0), x.shape[1:], x.dtype)
        y = x + step_size * score + math.sqrt(2 * step_size) * noise
        y_score, y_log_p = score_and_log_p(y)
        # Up to the same constant, log q(y | x) = -|noise|^2 / 2 and log q(x | y) = -|x - y - s score(y)|^2 / (4 s).
        log_ratio = (
            y_log_p - log_p + squared_norm(noise) / 2 - squared_norm(x - y - step_size * y_score) / (4 * step_size)
        )
        carry, acceptance = accept(fold_in(step_keys, 1), log_ratio, (y, y_score, y_log_p), carry)
        return carry, (log_p, acceptance)

    (x, _, _), trace = scan_steps(
        step, (x0, *score_and_log_p(x0)), num_steps=num_steps, keep_every=keep_every, unroll=unroll
    )
    return x, trace
