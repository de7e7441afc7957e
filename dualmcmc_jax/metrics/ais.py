"""Annealed importance sampling: log Z of an energy on a box, from below and from above (Neal 2001)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax.core.densities import squared_norm
from dualmcmc_jax.core.langevin import LogDensity, chain_keys, normal

_NUM_PILOTS = 100
_PILOT_STEP = 0.5
"""Standard deviation of log f, times the change of beta, from one temperature of the pilot to the next."""
_MOST_PILOT_STEPS = 20_000
_ACCEPTANCE = 0.8
_NUM_BOOTSTRAPS = 500


class Schedule(NamedTuple):
    """beta [T + 1] from 0 to 1 and the step size [T + 1] of the moves at each."""

    beta: np.ndarray
    step_size: np.ndarray


class Estimate(NamedTuple):
    """An average over chains: of log Z in nats, its standard error, and how many chains count."""

    log_z: float
    error: float
    effective_sample_size: float


def reflect(x: jax.Array, velocity: jax.Array, half_width: float) -> tuple[jax.Array, jax.Array]:
    """Where what has flown freely to x is, if walls at -half_width and half_width mirror it, and its velocity there."""
    position = jnp.mod(x + half_width, 4 * half_width)
    sign = jnp.where(position < 2 * half_width, 1, -1).astype(x.dtype)
    return half_width - jnp.abs(position - 2 * half_width), sign * velocity


def move(
    keys: jax.Array, x: jax.Array, log_density: LogDensity, step_size: jax.Array, *, half_width: float, num_steps: int
) -> tuple[jax.Array, jax.Array]:
    """One step of Hamiltonian Monte Carlo in the box [-half_width, half_width]^D, which leaves the density as it is.

    Leapfrog steps whose walls mirror the path preserve volume and can be run backwards, so that the usual Metropolis
    rule is exact (Neal 2011, Sec. 5.1); one of them is a Langevin step with reflected proposals.

    Args:
      keys: [B] keys, one per chain.
      x: [B, ...] inside the box.
      log_density: [B, ...] -> [B], up to a constant, in nats.
      step_size: of the leapfrog steps, in units of x.
      half_width: of the box.
      num_steps: leapfrog steps.

    Returns:
      The next states [B, ...] and the probability with which each was accepted [B].
    """
    score = jax.grad(lambda x: log_density(x).sum())
    start = normal(keys, x.shape[1:], x.dtype)

    def leap(_, carry):
        y, velocity = carry
        velocity = velocity + step_size / 2 * score(y)
        y, velocity = reflect(y + step_size * velocity, velocity, half_width)
        return y, velocity + step_size / 2 * score(y)

    y, velocity = jax.lax.fori_loop(0, num_steps, leap, (x, start))
    gain = log_density(y) - log_density(x) + (squared_norm(start) - squared_norm(velocity)) / 2
    probability = jnp.exp(jnp.minimum(jnp.nan_to_num(gain, nan=-jnp.inf), 0))
    uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), dtype=x.dtype))(keys)
    accepted = (uniform < probability).reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(accepted, y, x), probability


def anneal(
    keys: jax.Array, x: jax.Array, log_f: LogDensity, schedule: Schedule, *, half_width: float, num_steps: int = 3
) -> tuple[jax.Array, jax.Array]:
    """Chains through the densities f^beta, in the order of the schedule, and the logarithm of their weights.

    From beta 0 to 1, of x uniform in the box, the weights' mean is Z over the box's volume; from 1 to 0, of exact draws
    of f / Z, it is the volume over Z.

    Args:
      keys: [B] keys, one per chain.
      x: [B, ...] draws of the first density.
      log_f: [B, ...] -> [B], in nats.
      schedule: its first step size is not used.
      half_width: of the box [-half_width, half_width]^D.
      num_steps: leapfrog steps per temperature.

    Returns:
      The last states [B, ...] and log weights [B].
    """
    beta, step_size = (jnp.asarray(part, x.dtype) for part in schedule)

    def step(carry, t):
        x, log_w = carry
        log_w = log_w + (beta[t] - beta[t - 1]) * log_f(x)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
        tempered = lambda x: beta[t] * log_f(x)
        x, _ = move(step_keys, x, tempered, step_size[t], half_width=half_width, num_steps=num_steps)
        return (x, log_w), None

    (x, log_w), _ = jax.lax.scan(step, (x, jnp.zeros(len(x), x.dtype)), jnp.arange(1, len(beta)))
    return x, log_w


def pilot(
    key: jax.Array, shape: tuple[int, ...], log_f: LogDensity, *, half_width: float, num_temperatures: int, dtype
) -> Schedule:
    """A schedule of equal thermodynamic length between temperatures, from chains that are used for nothing else.

    Raises:
      ValueError: the energy varies so much that the chains do not get to beta 1.
    """
    keys = chain_keys(jax.random.fold_in(key, 0), jnp.arange(_NUM_PILOTS))
    x = uniform(jax.random.fold_in(key, 1), _NUM_PILOTS, shape, half_width=half_width, dtype=dtype)

    @jax.jit
    def step(t, x, beta, step_size):
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
        x, probability = move(step_keys, x, lambda x: beta * log_f(x), step_size, half_width=half_width, num_steps=3)
        return x, probability.mean(), log_f(x).std()

    betas, step_sizes, step_size = [0.0], [half_width], half_width
    spread = float(jax.jit(log_f)(x).std())
    while betas[-1] < 1:
        if len(betas) > _MOST_PILOT_STEPS or not np.isfinite(spread):
            found = f"beta {betas[-1]:.3g} after {len(betas):,} temperatures"
            raise ValueError(f"evaluation.ais_temperatures: found {found}, expected an energy that can be annealed")
        betas.append(min(1.0, betas[-1] + _PILOT_STEP / max(spread, _PILOT_STEP)))
        x, probability, spread = step(len(betas), x, betas[-1], step_size)
        spread, step_size = float(spread), min(half_width, step_size * float(np.exp(probability - _ACCEPTANCE)))
        step_sizes.append(step_size)
    at, known = np.linspace(0, len(betas) - 1, num_temperatures + 1), np.arange(len(betas))
    return Schedule(np.interp(at, known, betas), np.interp(at, known, step_sizes))


def uniform(key: jax.Array, num: int, shape: tuple[int, ...], *, half_width: float, dtype) -> jax.Array:
    """[num, *shape] draws in the box."""
    return jax.random.uniform(key, (num, *shape), dtype, minval=-half_width, maxval=half_width)


def log_mean(log_w: np.ndarray) -> Estimate:
    """log of the mean of the weights [B]: on average at most the log of what they estimate (Jensen).

    Its error is that of the bootstrap, which is large where a few weights are all.
    """
    log_w = np.asarray(log_w, np.float64)
    log_sum = np.logaddexp.reduce(log_w)
    again = log_w[np.random.RandomState(0).randint(len(log_w), size=(_NUM_BOOTSTRAPS, len(log_w)))]
    error = np.logaddexp.reduce(again, axis=1).std()
    size = np.exp(2 * log_sum - np.logaddexp.reduce(2 * log_w))
    return Estimate(float(log_sum - np.log(len(log_w))), float(error), float(size))


def bounds(
    key: jax.Array,
    log_f: LogDensity,
    shape: tuple[int, ...],
    *,
    half_width: float,
    num_temperatures: int,
    num_chains: int,
    dtype=jnp.float32,
    draw: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[Estimate, Estimate]:
    """log Z on the box from below, by annealing forward, and from above, by annealing back (Grosse et al. 2015).

    Args:
      key: of everything random.
      log_f: [B, *shape] -> [B], in nats.
      shape: of one example.
      half_width: of the box.
      num_temperatures: from beta 0 to 1.
      num_chains: in each direction.
      dtype: of the chains.
      draw: key -> [num_chains, *shape], exact draws of f / Z. None: the forward chains' ends, resampled by their
        weights and moved on at beta 1 for as long again, so that the upper bound is one as far as they have mixed.
    """
    keys = jax.random.split(key, 6)
    schedule = pilot(keys[0], shape, log_f, half_width=half_width, num_temperatures=num_temperatures, dtype=dtype)
    run = jax.jit(lambda keys, x, schedule: anneal(keys, x, log_f, schedule, half_width=half_width))
    chains = lambda key: chain_keys(key, jnp.arange(num_chains))
    x, log_w = run(chains(keys[1]), uniform(keys[2], num_chains, shape, half_width=half_width, dtype=dtype), schedule)
    volume = np.prod(shape) * np.log(2 * half_width)
    forward = log_mean(log_w)
    if draw:
        x = draw(keys[3])
    else:
        x = x[jax.random.categorical(keys[3], log_w, shape=(num_chains,))]
        still = Schedule(np.ones(num_temperatures + 1), np.full(num_temperatures + 1, schedule.step_size[-1]))
        x, _ = run(chains(keys[4]), x, still)
    _, log_w = run(chains(keys[5]), x, Schedule(*(part[::-1] for part in schedule)))
    back = log_mean(log_w)
    return forward._replace(log_z=forward.log_z + volume), back._replace(log_z=volume - back.log_z)
