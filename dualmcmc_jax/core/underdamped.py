"""Underdamped Langevin dynamics by the BAOAB splitting (Leimkuhler & Matthews 2013)."""

import math

import jax

from dualmcmc_jax.core.langevin import LogDensity, Trace, normal, scan_steps, summed


def underdamped(
    keys: jax.Array,
    x0: jax.Array,
    log_density: LogDensity,
    *,
    num_steps: int,
    step_size: float,
    friction: float = 0.1,
    keep_every: int | None = None,
    unroll: int = 1,
) -> tuple[jax.Array, Trace]:
    """Run a batch of unadjusted underdamped Langevin chains.

    Chains have a velocity v, which begins as a draw of N(0, I), and follow dx = v dt,
    dv = grad log p(x) dt - gamma v dt + sqrt(2 gamma) dW. A step of length h = sqrt(2 s) consists of five parts:

        B: v <- v + h/2 grad log p(x)
        A: x <- x + h/2 v
        O: v <- c v + sqrt(1 - c^2) N(0, I),    c = exp(-gamma h)
        A: x <- x + h/2 v
        B: v <- v + h/2 grad log p(x)

    The friction is given as gamma h, so that it has the same effect for every step size: a velocity lasts for about
    1 / (gamma h) steps. Without friction, the steps are leapfrog steps (`core.hmc`). With large friction, the velocity
    is forgotten in every step, which then is x <- x + s grad log p(x) + sqrt(2 s) (n_t + n_(t+1)) / 2 with standard
    normal n_t.

    On a Gaussian density, the stationary density of x is exact for any stable step size, where that of `langevin` is
    too wide. On other densities, its error is of order s^2, where that of `langevin` is of order s.

    Args:
      keys: [B] keys, one per chain.
      x0: [B, ...] initial states.
      log_density: [B, ...] -> [B] log-densities in nats, up to a constant.
      num_steps: number of steps, at least 0. With 0 steps the final states are x0.
      step_size: s, in squared units of x.
      friction: gamma h, without unit, at least 0.
      keep_every: number of steps between the states that the trace keeps. None: keep no states.
      unroll: steps per iteration of the compiled loop. It affects only speed.

    Returns:
      The final states [B, ...] and the `Trace` of the chains.
    """
    score_and_log_p = jax.grad(summed(log_density), has_aux=True)
    half, kept = math.sqrt(2 * step_size) / 2, math.exp(-friction)
    draw = lambda t: normal(jax.vmap(jax.random.fold_in, (0, None))(keys, t), x0.shape[1:], x0.dtype)

    def step(carry, t):
        x, velocity, score, log_p = carry
        velocity = velocity + half * score
        x = x + half * velocity
        velocity = kept * velocity + math.sqrt(1 - kept**2) * draw(t + 1)
        x = x + half * velocity
        score, new_log_p = score_and_log_p(x)
        return (x, velocity + half * score, score, new_log_p), (log_p, None)

    start = (x0, draw(0), *score_and_log_p(x0))
    (x, *_), trace = scan_steps(step, start, num_steps=num_steps, keep_every=keep_every, unroll=unroll)
    return x, trace
