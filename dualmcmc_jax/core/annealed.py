"""Unadjusted Langevin dynamics with step sizes and temperatures that fall along the chain."""

import jax
import jax.numpy as jnp

from dualmcmc_jax.core.langevin import LogDensity, Trace, normal, scan_steps, summed


def annealed(
    keys: jax.Array,
    x0: jax.Array,
    log_density: LogDensity,
    *,
    num_steps: int,
    step_size: float,
    step_annealing: float = 10.0,
    temperature_annealing: float = 1.0,
    keep_every: int | None = None,
    unroll: int = 1,
) -> tuple[jax.Array, Trace]:
    """Run a batch of unadjusted Langevin chains with annealed step sizes, annealed temperatures, or both.

    Step t is a step of `langevin` on the density p^(1 / tau_t) with the step size s_t:

        x <- x + s_t / tau_t grad log p(x) + sqrt(2 s_t) N(0, I).

    The step sizes fall geometrically from a s in the first step to s in the last step (as in Song & Ermon 2019), and
    the temperatures from b to 1 (simulated annealing, Kirkpatrick et al. 1983). Large first steps cross long distances,
    and high first temperatures cross regions of low density. The last steps are those of `langevin`. With a = b = 1,
    all steps are.

    Args:
      keys: [B] keys, one per chain.
      x0: [B, ...] initial states.
      log_density: [B, ...] -> [B] log-densities in nats, up to a constant.
      num_steps: number of steps, at least 0. With 0 steps the final states are x0.
      step_size: s, the step size of the last step, in squared units of x.
      step_annealing: a, the step size of the first step as a multiple of s, positive.
      temperature_annealing: b, the temperature of the first step, positive.
      keep_every: number of steps between the states that the trace keeps. None: keep no states.
      unroll: steps per iteration of the compiled loop. It affects only speed.

    Returns:
      The final states [B, ...] and the `Trace` of the chains.
    """
    total = summed(log_density)
    to_go = jnp.linspace(1, 0, num_steps, dtype=x0.dtype) if num_steps > 1 else jnp.zeros(1, x0.dtype)
    step_sizes, temperatures = step_size * step_annealing**to_go, temperature_annealing**to_go

    def step(carry, t):
        (x,) = carry
        score, log_p = jax.grad(total, has_aux=True)(x)
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, t), x.shape[1:], x.dtype)
        x = x + step_sizes[t] / temperatures[t] * score + jnp.sqrt(2 * step_sizes[t]) * noise
        return (x,), (log_p, None)

    (x,), trace = scan_steps(step, (x0,), num_steps=num_steps, keep_every=keep_every, unroll=unroll)
    return x, trace
