"""Annealed importance sampling: bounds on the log partition function of a density on a box (Neal 2001)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
_NUM_LEAPFROG_STEPS = 3

LogDensityOf = Callable[[Any], LogDensity]
"""(constants) -> log f. Compiled functions take the constants as arguments and call this once."""


class Schedule(NamedTuple):
    """beta [T + 1] from 0 to 1, and the step size [T + 1] of the moves at each beta."""

    beta: np.ndarray
    step_size: np.ndarray


class Estimate(NamedTuple):
    """An estimate of log Z in nats by an average over chains, its standard error, and the effective sample size."""

    log_z: float
    error: float
    effective_sample_size: float


def reflect(x: jax.Array, velocity: jax.Array, half_width: float) -> tuple[jax.Array, jax.Array]:
    """Fold a free flight into the box: walls at -half_width and half_width mirror it.

    Args:
      x: end of the free flight.
      velocity: velocity of the free flight.
      half_width: half the width of the box.

    Returns:
      Position and velocity at the end of the mirrored flight.
    """
    position = jnp.mod(x + half_width, 4 * half_width)
    sign = jnp.where(position < 2 * half_width, 1, -1).astype(x.dtype)
    return half_width - jnp.abs(position - 2 * half_width), sign * velocity


def move(
    keys: jax.Array, x: jax.Array, log_density: LogDensity, step_size: jax.Array, *, half_width: float, num_steps: int
) -> tuple[jax.Array, jax.Array]:
    """Make one step of Hamiltonian Monte Carlo in the box [-half_width, half_width]^D, which keeps the density.

    Leapfrog steps with mirroring walls preserve volume and can be run backwards, so that the usual Metropolis rule is
    exact (Neal 2011, Sec. 5.1). A single leapfrog step is a Langevin step with reflected proposals.

    Args:
      keys: [B] keys, one per chain.
      x: [B, ...] inside the box.
      log_density: [B, ...] -> [B], up to a constant, in nats.
      step_size: step size of the leapfrog steps, in units of x.
      half_width: half the width of the box.
      num_steps: number of leapfrog steps.

    Returns:
      The next states [B, ...] and the acceptance probabilities [B].
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
    keys: jax.Array,
    x: jax.Array,
    log_f: LogDensity,
    schedule: Schedule,
    *,
    half_width: float,
    num_steps: int = _NUM_LEAPFROG_STEPS,
) -> tuple[jax.Array, jax.Array]:
    """Run chains through the densities f^beta in the order of a schedule, and weigh them.

    From beta 0 to 1, with x uniform in the box, the mean of the weights is Z divided by the volume of the box. From
    1 to 0, with x exact draws of f / Z, the mean is the volume divided by Z.

    Args:
      keys: [B] keys, one per chain.
      x: [B, ...] draws of the first density.
      log_f: [B, ...] -> [B], in nats.
      schedule: the betas and step sizes. The first step size is not used.
      half_width: half the width of the box [-half_width, half_width]^D.
      num_steps: number of leapfrog steps per temperature.

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
    key: jax.Array,
    shape: tuple[int, ...],
    log_f_of: LogDensityOf,
    constants: Any,
    *,
    half_width: float,
    num_temperatures: int,
    dtype,
) -> Schedule:
    """Find a schedule of equal thermodynamic length between temperatures, from chains that are used for nothing else.

    The arguments are those of `bounds`.

    Raises:
      ValueError: the energy varies so much that the chains do not get to beta 1.
    """
    keys = chain_keys(jax.random.fold_in(key, 0), jnp.arange(_NUM_PILOTS))
    x = uniform(jax.random.fold_in(key, 1), _NUM_PILOTS, shape, half_width=half_width, dtype=dtype)
    betas, step_sizes, step_size = [0.0], [half_width], half_width
    spread = float(_values(constants, x, log_f_of=log_f_of).std())
    while betas[-1] < 1:
        if len(betas) > _MOST_PILOT_STEPS or not np.isfinite(spread):
            reached = f"beta {betas[-1]:.3g} after {len(betas):,} temperatures"
            raise ValueError(f"evaluation.ais_temperatures: found {reached}, expected an energy that can be annealed")
        betas.append(min(1.0, betas[-1] + _PILOT_STEP / max(spread, _PILOT_STEP)))
        x, probability, spread = _pilot_step(
            keys, len(betas), x, betas[-1], step_size, constants, log_f_of=log_f_of, half_width=half_width
        )
        spread, step_size = float(spread), min(half_width, step_size * float(np.exp(probability - _ACCEPTANCE)))
        step_sizes.append(step_size)
    at, index = np.linspace(0, len(betas) - 1, num_temperatures + 1), np.arange(len(betas))
    return Schedule(np.interp(at, index, betas), np.interp(at, index, step_sizes))


def uniform(key: jax.Array, num: int, shape: tuple[int, ...], *, half_width: float, dtype) -> jax.Array:
    """Draw uniformly in the box: [num, *shape]."""
    return jax.random.uniform(key, (num, *shape), dtype, minval=-half_width, maxval=half_width)


def log_mean(log_w: np.ndarray) -> Estimate:
    """Return the log of the mean of weights, given log weights [B].

    On average the log of the mean is at most the log of the quantity that the weights estimate (Jensen). The standard
    error is that of the bootstrap, which is large where a few weights dominate.
    """
    log_w = np.asarray(log_w, np.float64)
    log_sum = np.logaddexp.reduce(log_w)
    again = log_w[np.random.RandomState(0).randint(len(log_w), size=(_NUM_BOOTSTRAPS, len(log_w)))]
    error = np.logaddexp.reduce(again, axis=1).std()
    size = np.exp(2 * log_sum - np.logaddexp.reduce(2 * log_w))
    return Estimate(float(log_sum - np.log(len(log_w))), float(error), float(size))


def bounds(
    key: jax.Array,
    log_f_of: LogDensityOf,
    constants: Any,
    shape: tuple[int, ...],
    *,
    half_width: float,
    num_temperatures: int,
    num_chains: int,
    dtype=jnp.float32,
    draw: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[Estimate, Estimate]:
    """Bound log Z on the box from below, by annealing forward, and from above, by annealing back (Grosse et al. 2015).

    Args:
      key: one key.
      log_f_of: constants -> log f, where log f: [B, *shape] -> [B], in nats.
      constants: a tree of arrays, such as a model.
      shape: shape of one example.
      half_width: half the width of the box.
      num_temperatures: number of steps from beta 0 to 1.
      num_chains: number of chains in each direction.
      dtype: dtype of the chains.
      draw: key -> [num_chains, *shape], exact draws of f / Z. None: the ends of the forward chains, resampled by their
        weights and moved on at beta 1 for as many steps again. Then the upper bound holds as far as they have mixed.

    Returns:
      The estimates from below and from above.
    """
    keys = jax.random.split(key, 6)
    settings = {"half_width": half_width, "num_temperatures": num_temperatures, "dtype": dtype}
    schedule = pilot(keys[0], shape, log_f_of, constants, **settings)
    run = partial(_anneal, constants, log_f_of=log_f_of, half_width=half_width)
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


@partial(jax.jit, static_argnames="log_f_of")
def _values(constants, x, *, log_f_of):
    return log_f_of(constants)(x)


@partial(jax.jit, static_argnames=("log_f_of", "half_width"))
def _pilot_step(keys, t, x, beta, step_size, constants, *, log_f_of, half_width):
    """Move the pilot's chains once; return the states, the mean acceptance and the standard deviation of log f."""
    log_f, step_keys = log_f_of(constants), jax.vmap(jax.random.fold_in, (0, None))(keys, t)
    tempered = lambda x: beta * log_f(x)
    x, probability = move(step_keys, x, tempered, step_size, half_width=half_width, num_steps=_NUM_LEAPFROG_STEPS)
    return x, probability.mean(), log_f(x).std()


@partial(jax.jit, static_argnames=("log_f_of", "half_width"))
def _anneal(constants, keys, x, schedule, *, log_f_of, half_width):
    return anneal(keys, x, log_f_of(constants), schedule, half_width=half_width)
