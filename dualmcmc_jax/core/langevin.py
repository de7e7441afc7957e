"""Langevin dynamics (Eq. 3 and 6): one kernel that samples images and latents."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

LogDensity = Callable[[jax.Array], jax.Array]


class Trace(NamedTuple):
    """Diagnostics recorded along a batch of chains.

    Attributes:
      log_density: [num_steps, B] log-densities of the states *before* each step, up to a constant, in nats.
      states: [ceil(num_steps / keep_every) + 1, B, ...] states after 0, keep_every, 2 keep_every, ... steps; the last
        row is the final state. None unless keep_every was given.
      acceptance: [num_steps, B] probabilities with which each step was accepted. None for kernels that accept every
        step.
    """

    log_density: jax.Array
    states: jax.Array | None
    acceptance: jax.Array | None = None


def chain_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Return one PRNG key per chain.

    The key of a chain depends only on `key` and on the index of the chain. If the chains of all devices are numbered
    consecutively, their random numbers therefore do not depend on the number of devices.

    Args:
      key: a typed PRNG key, from `jax.random.key`.
      index: [B] indices of the chains, such as jnp.arange(B).

    Returns:
      [B] keys.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def normal(keys: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Draw standard normal numbers, independently for each chain.

    Args:
      keys: [B] keys, one per chain.
      shape: shape of the draw of one chain.
      dtype: dtype of the result.

    Returns:
      [B, *shape] numbers. Row i depends only on keys[i].
    """
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
    """Run a batch of unadjusted Langevin chains (Eq. 3 and 6).

    Each step is x <- x + s grad log p(x) + sqrt(2 s) N(0, I). The gradient is that of the *sum* of log_density over the
    batch. If log_density couples the examples of a batch, as a generator with batch normalization does, the batch is
    sampled jointly. Apart from the trace, memory does not depend on num_steps.

    Args:
      keys: [B] keys, one per chain.
      x0: [B, ...] initial states.
      log_density: [B, ...] -> [B] log-densities in nats, up to a constant.
      num_steps: number of Langevin steps, at least 0. With 0 steps the final states are x0.
      step_size: s, in squared units of x.
      keep_every: number of steps between the states that the trace keeps. None: keep no states.
      unroll: steps per iteration of the compiled loop. It affects only speed.

    Returns:
      The final states [B, ...] and the `Trace` of the chains.
    """

    total = summed(log_density)

    def step(carry, t):
        (x,) = carry
        score, log_p = jax.grad(total, has_aux=True)(x)
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, t), x.shape[1:], x.dtype)
        x = x + step_size * score + math.sqrt(2 * step_size) * noise
        return (x,), (log_p, None)

    (x,), trace = scan_steps(step, (x0,), num_steps=num_steps, keep_every=keep_every, unroll=unroll)
    return x, trace


def summed(log_density: LogDensity) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Return the function x -> (sum of log_density(x), log_density(x)). The gradient of the sum holds every score."""

    def total(x):
        log_p = log_density(x)
        return log_p.sum(), log_p

    return total


def clipped(log_density: LogDensity, max_norm: float) -> LogDensity:
    """Return a log-density with the same values, whose score is clipped: grad log p min(1, max_norm / |grad log p|).

    This is the truncated drift of MALTA (Roberts & Tweedie 1996). The norm is the L2 norm of the score of one example.
    Kernels with a Metropolis correction remain exact, because they use the clipped score both in their proposals and
    in the densities of the proposals, but the unclipped log-density in the ratio of the target densities.

    Args:
      log_density: [B, ...] -> [B] log-densities in nats, up to a constant.
      max_norm: largest norm of a score, in nats per unit of x. 0: scores are not clipped.
    """
    if not max_norm:
        return log_density

    @jax.custom_vjp
    def identity(x):
        return x

    def clip(_, score):
        norm = jnp.sqrt(jnp.sum(score**2, axis=tuple(range(1, score.ndim)), keepdims=True))
        return (jnp.where(norm > max_norm, score * (max_norm / norm), score),)

    identity.defvjp(lambda x: (x, None), clip)
    return lambda x: log_density(identity(x))


def scan_steps(step: Callable, carry: tuple, *, num_steps: int, keep_every: int | None, unroll: int):
    """Repeat the step of a kernel, and record the `Trace` of the chains.

    Args:
      step: (carry, t) -> (carry, (log-densities [B] of the states before the step, acceptance probabilities [B] of the
        step or None)).
      carry: what a step passes to the next one. Its first part is the states x [B, ...].
      num_steps: number of steps.
      keep_every: number of steps between the states that the trace keeps. None: keep no states.
      unroll: steps per iteration of the compiled loop.

    Returns:
      The final carry and the `Trace`.
    """
    x0, states = carry[0], None

    def record(carry_and_states, t):
        carry, states = carry_and_states
        if keep_every:
            # Row i is written at t = (i - 1) keep_every + 1, ..., i keep_every. The last write remains: the state after
            # i keep_every steps.
            states = states.at[-(-t // keep_every)].set(carry[0])
        carry, recorded = step(carry, t)
        return (carry, states), recorded

    if keep_every:
        states = jnp.zeros((-(-num_steps // keep_every) + 1, *x0.shape), x0.dtype)
    steps = jnp.arange(num_steps)
    (carry, states), (log_p, acceptance) = jax.lax.scan(record, (carry, states), steps, unroll=unroll)
    return carry, Trace(log_p, states if states is None else states.at[-1].set(carry[0]), acceptance)
