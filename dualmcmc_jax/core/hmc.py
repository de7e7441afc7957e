"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011), whose chains have exactly the target density."""

import math
from collections.abc import Callable

import jax

from dualmcmc_jax.core.densities import squared_norm
from dualmcmc_jax.core.langevin import LogDensity, Trace, normal, scan_steps, summed
from dualmcmc_jax.core.metropolis import accept


def hmc(
    keys: jax.Array,
    x0: jax.Array,
    log_density: LogDensity,
    *,
    num_steps: int,
    step_size: float,
    num_leapfrog_steps: int = 10,
    keep_every: int | None = None,
    unroll: int = 1,
) -> tuple[jax.Array, Trace]:
    """Run a batch of Hamiltonian Monte Carlo chains.

    Each step draws a velocity v ~ N(0, I), follows the dynamics dx/dt = v, dv/dt = grad log p(x) by L leapfrog steps to
    (y, w), and accepts y with probability

        min(1, p(y) exp(-|w|^2 / 2) / (p(x) exp(-|v|^2 / 2))).

    Leapfrog steps are reversible and preserve volume, so the ratio needs no other factor (Neal 2011, Sec. 5.2). The
    length of a leapfrog step is sqrt(2 s). With L = 1, a step therefore is a step of `mala` with the same s. With
    larger L, the chain moves up to L sqrt(2 s) in one direction per step, at the cost of L gradients. log_density must
    treat the examples of a batch independently.

    Args:
      keys: [B] keys, one per chain.
      x0: [B, ...] initial states.
      log_density: [B, ...] -> [B] log-densities in nats, up to a constant.
      num_steps: number of steps, at least 0. With 0 steps the final states are x0.
      step_size: s, in squared units of x.
      num_leapfrog_steps: L, the number of leapfrog steps per step, at least 1.
      keep_every: number of steps between the states that the trace keeps. None: keep no states.
      unroll: steps per iteration of the compiled loop. It affects only speed.

    Returns:
      The final states [B, ...] and the `Trace` of the chains.
    """
    score_and_log_p = jax.grad(summed(log_density), has_aux=True)
    settings = {"time_step": math.sqrt(2 * step_size), "num_steps": num_leapfrog_steps, "unroll": unroll}

    def step(carry, t):
        x, score, log_p = carry
        fold_in = jax.vmap(jax.random.fold_in, (0, None))
        step_keys = fold_in(keys, t)
        velocity = normal(fold_in(step_keys, 0), x.shape[1:], x.dtype)
        y, y_velocity, y_score, y_log_p = leapfrog(x, velocity, score, log_p, score_and_log_p, **settings)
        log_ratio = y_log_p - log_p + (squared_norm(velocity) - squared_norm(y_velocity)) / 2
        carry, acceptance = accept(fold_in(step_keys, 1), log_ratio, (y, y_score, y_log_p), carry)
        return carry, (log_p, acceptance)

    (x, _, _), trace = scan_steps(
        step, (x0, *score_and_log_p(x0)), num_steps=num_steps, keep_every=keep_every, unroll=unroll
    )
    return x, trace


def leapfrog(
    x: jax.Array,
    velocity: jax.Array,
    score: jax.Array,
    log_p: jax.Array,
    score_and_log_p: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    *,
    time_step: float | jax.Array,
    num_steps: int,
    move: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]] = lambda x, velocity: (x, velocity),
    unroll: int = 1,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Follow dx/dt = v, dv/dt = grad log p(x) by leapfrog steps (Neal 2011, Eq. 5.18 to 5.20).

    A step of length h is v <- v + h/2 grad log p(x), x <- x + h v, v <- v + h/2 grad log p(x). From the end with
    reversed velocity, the same number of steps leads back to the start.

    Args:
      x: [B, ...] positions.
      velocity: [B, ...] velocities.
      score: [B, ...] scores grad log p(x) at the positions.
      log_p: [B] log-densities of the positions.
      score_and_log_p: x -> scores [B, ...] and log-densities [B].
      time_step: h, in units of x.
      num_steps: number of leapfrog steps, at least 1.
      move: (x + h v, v) -> the position and velocity after a motion with obstacles, such as reflecting walls.
      unroll: leapfrog steps per iteration of the compiled loop. It affects only speed.

    Returns:
      Positions, velocities and scores [B, ...] after the steps, and the log-densities [B] of these positions.
    """

    def leap(carry, _):
        x, velocity, score, _ = carry
        velocity = velocity + time_step / 2 * score
        x, velocity = move(x + time_step * velocity, velocity)
        score, log_p = score_and_log_p(x)
        return (x, velocity + time_step / 2 * score, score, log_p), None

    end, _ = jax.lax.scan(leap, (x, velocity, score, log_p), length=num_steps, unroll=min(unroll, num_steps))
    return end
