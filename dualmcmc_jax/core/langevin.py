"""Langevin dynamics (Eq. 3 and 6), one kernel for images and for latents."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

LogDensity = Callable[[jax.Array], jax.Array]


class Trace(NamedTuple):
    """The record of a chain.

    Attributes:
      log_density: [num_steps, B], the log-density *before* each step.
      states: None, or [ceil(num_steps / keep_every) + 1, B, ...]: the states after 0, n, 2n, ... steps,
        and last the final one.
    """

    log_density: jax.Array
    states: jax.Array | None


def chain_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Return one key per chain, a function of the chain's global index alone: [B] keys from index [B]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def normal(keys: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Draw standard normals [B, *shape], row i from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def langevin(
    keys: jax.Array,
    x0: jax.Array,
    log_density: LogDensity,
    *,
    num_steps: int,
    step_size: float,
    keep_every: int | None = None,
    unroll: int = 1,
) -> tuple[jax.Array, Trace]:
    """Run num_steps Langevin steps: x <- x + s grad log p(x) + sqrt(2 s) N(0, I) (Eq. 3 and 6).

    The gradient is that of the *sum* of log_density over the batch, so a density whose examples are
    coupled (batch normalisation) is sampled jointly. Memory does not grow with num_steps.

    Args:
      keys: [B] keys, one per chain.
      x0: [B, ...] initial states.
      log_density: [B, ...] -> [B], up to a constant, in nats.
      num_steps: number of Langevin steps; 0 returns x0.
      step_size: s above, in squared units of x.
      keep_every: if given, also keep every n-th state.
      unroll: steps per iteration of the compiled loop; changes speed only.

    Returns:
      The final states [B, ...] and the Trace.
    """

    def total(x):
        log_p = log_density(x)
        return log_p.sum(), log_p

    def step(carry, t):
        x, states = carry
        if keep_every:  # the last of the n states that share a slot stays: the one after t = 0, n, 2n, ... steps
            states = states.at[-(-t // keep_every)].set(x)
        score, log_p = jax.grad(total, has_aux=True)(x)
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, t), x.shape[1:], x.dtype)
        x = x + step_size * score + math.sqrt(2 * step_size) * noise
        return (x, states), log_p

    kept = None
    if keep_every:
        kept = jnp.zeros((-(-num_steps // keep_every) + 1, *x0.shape), x0.dtype)
    (x, kept), log_p = jax.lax.scan(step, (x0, kept), jnp.arange(num_steps), unroll=unroll)
    return x, Trace(log_p, kept if kept is None else kept.at[-1].set(x))
