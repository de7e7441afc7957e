"""Annealed importance sampling: bounds on the log partition function log Z of a density on a box (Neal, 2001).

The unnormalized density is f on the box [-half_width, half_width]^D, and Z is the integral of f. Chains move through
the densities f^beta, where beta is an inverse temperature between 0 (uniform) and 1 (the density itself).
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax.core.densities import squared_norm
from dualmcmc_jax.core.hmc import leapfrog
from dualmcmc_jax.core.langevin import LogDensity, chain_keys, normal, summed
from dualmcmc_jax.core.metropolis import accept

_NUM_PILOTS = 100
"""Number of pilot chains, which determine the annealing schedule."""
_PILOT_STEP = 0.1
"""Thermodynamic length between neighboring temperatures of the pilot chains: the change of beta times the standard
deviation of log f."""
_MAX_PILOT_STEPS = 20_000
"""Largest number of moves of the pilot chains."""
_ACCEPTANCE = 0.8
"""Acceptance rate to which the step size is adapted."""
_LEAST_ACCEPTANCE = 0.4
"""Acceptance rate below which pilot chains stay at their temperature, until the step size has been adapted."""
_NUM_BOOTSTRAPS = 500
"""Number of bootstrap samples for a standard error."""
_NUM_LEAPFROG_STEPS = 5
"""Number of leapfrog steps per temperature."""

LogDensityOf = Callable[[Any], LogDensity]
"""A function from constants, such as a model, to log f. Compiled functions take the constants as an argument."""


class Schedule(NamedTuple):
    """An annealing schedule.

    Attributes:
      beta: [T + 1], inverse temperatures from 0 to 1.
      step_size: [T + 1], step size of the moves at each beta, in units of x.
    """

    beta: np.ndarray
    step_size: np.ndarray


class Estimate(NamedTuple):
    """An estimate of log Z from the mean weight of chains.

    Attributes:
      log_z: the estimate, in nats.
      error: its standard error, in nats.
      effective_sample_size: (sum w)^2 / sum w^2 of the weights w, between 1 and the number of chains.
    """

    log_z: float
    error: float
    effective_sample_size: float


def reflect(x: jax.Array, velocity: jax.Array, half_width: float) -> tuple[jax.Array, jax.Array]:
    """Reflect a motion along a straight line at the walls of the box [-half_width, half_width]^D.

    Args:
      x: [B, ...], end points of the motion without walls.
      velocity: [B, ...], velocities of the motion without walls.
      half_width: half the width of the box.

    Returns:
      Positions and velocities [B, ...] at the end of the reflected motion.
    """
    position = jnp.mod(x + half_width, 4 * half_width)
    sign = jnp.where(position < 2 * half_width, 1, -1).astype(x.dtype)
    return half_width - jnp.abs(position - 2 * half_width), sign * velocity


def move(
    keys: jax.Array, x: jax.Array, log_density: LogDensity, step_size: jax.Array, *, half_width: float, num_steps: int
) -> tuple[jax.Array, jax.Array]:
    """Make one step of Hamiltonian Monte Carlo in a box. The step leaves the density invariant.

    Leapfrog steps with reflecting walls preserve volume and are reversible, so the usual Metropolis rule is exact
    (Neal, 2011, Sec. 5.5.1). With num_steps = 1 this is a step of the Metropolis-adjusted Langevin algorithm. Each
    chain draws its own step size, because with a fixed one a periodic motion can lead back to the start (Sec. 5.3.2).

    Args:
      keys: [B] keys, one per chain.
      x: [B, ...], states inside the box.
      log_density: [B, ...] -> [B], up to a constant, in nats.
      step_size: h, in units of x. The leapfrog steps of a chain have a random size within 20% of h.
      half_width: half the width of the box.
      num_steps: number of leapfrog steps.

    Returns:
      The next states [B, ...] and the acceptance probabilities [B].
    """
    score_and_log_p = jax.grad(summed(log_density), has_aux=True)
    start, (score, log_p) = normal(keys, x.shape[1:], x.dtype), score_and_log_p(x)
    walls = partial(reflect, half_width=half_width)
    factor = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2), (), x.dtype, 0.8, 1.2))(keys)
    time_step = step_size * factor.reshape(-1, *(1,) * (x.ndim - 1))
    y, velocity, _, y_log_p = leapfrog(
        x, start, score, log_p, score_and_log_p, time_step=time_step, num_steps=num_steps, move=walls
    )
    gain = y_log_p - log_p + (squared_norm(start) - squared_norm(velocity)) / 2
    (x,), probability = accept(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), gain, (y,), (x,))
    return x, probability


def anneal(
    keys: jax.Array,
    x: jax.Array,
    log_f: LogDensity,
    schedule: Schedule,
    *,
    half_width: float,
    num_steps: int = _NUM_LEAPFROG_STEPS,
) -> tuple[jax.Array, jax.Array]:
    """Run chains through the densities f^beta in the order of a schedule, and compute their importance weights.

    The weight of a chain is w = prod_t f(x_(t-1))^(beta_t - beta_(t-1)). For beta from 0 to 1, and x uniform in the
    box, E w = Z / volume of the box. For beta from 1 to 0, and x exact draws from f / Z, E w = volume of the box / Z.

    Args:
      keys: [B] keys, one per chain.
      x: [B, ...], draws from the first density of the schedule.
      log_f: [B, ...] -> [B], in nats.
      schedule: the betas and step sizes. The first step size is not used.
      half_width: half the width of the box [-half_width, half_width]^D.
      num_steps: number of leapfrog steps per temperature.

    Returns:
      The final states [B, ...] and the log weights log w [B].
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
    """Find an annealing schedule by pilot chains, which are not used for the estimate itself.

    The thermodynamic length between neighboring temperatures of the schedule is about constant. This length is the
    change of beta times the standard deviation of log f within a chain. The variance of log f within a chain is
    estimated by half the mean squared change of log f in one move. This would be exact for independent draws, and is
    too small where moves are short or rejected. The bounds are valid for any schedule.

    The standard deviation among the chains would be misleading. At low temperatures, chains stay in different modes,
    whose values of log f can differ by hundreds of nats. No number of temperatures changes this, so most of them should
    be where chains still move between modes.

    Args:
      key: one key.
      shape: shape of one example.
      log_f_of: constants -> log f, as in `bounds`.
      constants: the argument of log_f_of.
      half_width: half the width of the box.
      num_temperatures: number of steps of the schedule, T.
      dtype: dtype of the chains.

    Raises:
      ValueError: log f varies so much that the pilot chains do not reach beta = 1.
    """
    keys = chain_keys(jax.random.fold_in(key, 0), jnp.arange(_NUM_PILOTS))
    x = uniform(jax.random.fold_in(key, 1), _NUM_PILOTS, shape, half_width=half_width, dtype=dtype)
    betas, step_sizes, step_size = [0.0], [half_width], half_width
    spread, acceptance = float(_values(constants, x, log_f_of=log_f_of).std()), 1.0
    for t in itertools.count(1):
        if t > _MAX_PILOT_STEPS or not np.isfinite(spread):
            reached = f"beta = {betas[-1]:.3g} after {t - 1:,} moves"
            raise ValueError(
                f"evaluation.ais_temperatures: found an energy that varies too much to be annealed ({reached}), "
                "expected the pilot chains to reach beta = 1"
            )
        if acceptance >= _LEAST_ACCEPTANCE:
            if betas[-1] == 1:
                break
            betas.append(min(1.0, betas[-1] + _PILOT_STEP / max(spread, _PILOT_STEP)))
            step_sizes.append(step_size)
        x, *measured = _pilot_step(
            keys, t, x, betas[-1], step_size, constants, log_f_of=log_f_of, half_width=half_width
        )
        acceptance, spread = jax.device_get(measured)
        step_size = min(half_width, step_size * float(np.exp(acceptance - _ACCEPTANCE)))
        step_sizes[-1] = step_size
    at, index = np.linspace(0, len(betas) - 1, num_temperatures + 1), np.arange(len(betas))
    return Schedule(np.interp(at, index, betas), np.interp(at, index, step_sizes))


def uniform(key: jax.Array, num: int, shape: tuple[int, ...], *, half_width: float, dtype) -> jax.Array:
    """Draw uniform points [num, *shape] in the box [-half_width, half_width]^D."""
    return jax.random.uniform(key, (num, *shape), dtype, minval=-half_width, maxval=half_width)


def log_mean(log_w: np.ndarray) -> Estimate:
    """Return the log of the mean of weights, with its bootstrap standard error and the effective sample size.

    By Jensen's inequality, the expectation of the log of the mean weight is at most log E w. The standard error is
    large if a few weights dominate.

    Args:
      log_w: [B], log weights.
    """
    log_w = np.asarray(log_w, np.float64)
    log_sum = np.logaddexp.reduce(log_w)
    resampled = log_w[np.random.RandomState(0).randint(len(log_w), size=(_NUM_BOOTSTRAPS, len(log_w)))]
    error = np.logaddexp.reduce(resampled, axis=1).std()
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
    """Bound log Z on the box by bidirectional annealed importance sampling (Grosse et al., 2015).

    Forward annealing, from the uniform density to f, bounds log Z from below in expectation. Backward annealing, from
    exact draws of f / Z to the uniform density, bounds log Z from above in expectation.

    Args:
      key: one key.
      log_f_of: constants -> log f, where log f: [B, *shape] -> [B], in nats.
      constants: argument of log_f_of, a tree of arrays such as a model.
      shape: shape of one example.
      half_width: half the width of the box.
      num_temperatures: number of steps between beta = 0 and beta = 1.
      num_chains: number of chains in each direction.
      dtype: dtype of the chains.
      draw: key -> [num_chains, *shape], exact draws from f / Z. If None, the backward chains start at the final states
        of the forward chains instead, resampled by their weights and moved by num_temperatures more steps at beta = 1.
        The upper bound then misses modes that no forward chain has reached.

    Returns:
      The lower bound and the upper bound.
    """
    keys = jax.random.split(key, 6)
    settings = {"half_width": half_width, "num_temperatures": num_temperatures, "dtype": dtype}
    schedule = pilot(keys[0], shape, log_f_of, constants, **settings)
    run = partial(_anneal, constants, log_f_of=log_f_of, half_width=half_width)
    chains = lambda key: chain_keys(key, jnp.arange(num_chains))
    x, log_w = run(chains(keys[1]), uniform(keys[2], num_chains, shape, half_width=half_width, dtype=dtype), schedule)
    log_volume = np.prod(shape) * np.log(2 * half_width)
    forward = log_mean(log_w)
    if draw:
        x = draw(keys[3])
    else:
        x = x[jax.random.categorical(keys[3], log_w, shape=(num_chains,))]
        at_one = Schedule(np.ones(num_temperatures + 1), np.full(num_temperatures + 1, schedule.step_size[-1]))
        x, _ = run(chains(keys[4]), x, at_one)
    _, log_w = run(chains(keys[5]), x, Schedule(*(part[::-1] for part in schedule)))
    backward = log_mean(log_w)
    return forward._replace(log_z=forward.log_z + log_volume), backward._replace(log_z=log_volume - backward.log_z)


@partial(jax.jit, static_argnames="log_f_of")
def _values(constants, x, *, log_f_of):
    """Return log f [B] of states x [B, ...]."""
    return log_f_of(constants)(x)


@partial(jax.jit, static_argnames=("log_f_of", "half_width"))
def _pilot_step(keys, t, x, beta, step_size, constants, *, log_f_of, half_width):
    """Move the pilot chains by one step. Return their states, mean acceptance, and the spread of log f in a chain."""
    log_f, step_keys = log_f_of(constants), jax.vmap(jax.random.fold_in, (0, None))(keys, t)
    tempered, before = lambda x: beta * log_f(x), log_f(x)
    x, probability = move(step_keys, x, tempered, step_size, half_width=half_width, num_steps=_NUM_LEAPFROG_STEPS)
    return x, probability.mean(), jnp.sqrt(jnp.mean((log_f(x) - before) ** 2) / 2)


@partial(jax.jit, static_argnames=("log_f_of", "half_width"))
def _anneal(constants, keys, x, schedule, *, log_f_of, half_width):
    """Run `anneal` as a compiled function."""
    return anneal(keys, x, log_f_of(constants), schedule, half_width=half_width)
