"""How do I sample a density of my own from Python? `sample` runs chains, and tells whether to trust their draws."""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax.core.langevin import LogDensity, chain_keys, summed
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.metrics import chain_diagnostics
from dualmcmc_jax.model import check_key
from dualmcmc_jax.report import tables
from dualmcmc_jax.report.sections import Block, Table, number
from dualmcmc_jax.spelling import did_you_mean, one_of

_NUM_SHOWN = 10
"""Largest number of coordinates in the printed table."""
_COORDINATES_AT_ONCE = 64
"""Number of coordinates that are summarized together, which bounds the memory."""


class Summary(NamedTuple):
    """Numbers about the draws of scalar quantities, such as the coordinates of x; arrays of the same shape.

    Attributes:
      mean: mean of the draws of all chains.
      std: standard deviation of these draws.
      low: their 5th percentile.
      high: their 95th percentile.
      effective_sample_size: the number of independent draws that would estimate the mean as accurately.
      r_hat: 1 if all chains and their halves agree; draws with more than about 1.01 should not be used.
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    effective_sample_size: np.ndarray
    r_hat: np.ndarray


class Diagnostics(NamedTuple):
    """What is known about the chains of a call of `sample`. `print` shows it as a table.

    Attributes:
      sampler: name of the sampler.
      num_steps: number of steps of each chain, with the warm-up.
      warm_up: number of these steps that were not used for the diagnostics.
      acceptance: mean acceptance probability after the warm-up, or None if the sampler accepts every step.
      draws: [N, B, ...] the states that were kept after the warm-up.
      log_density: `Summary` of the log-density of the draws; scalars.
      coordinates: `Summary` of the coordinates of the draws; arrays of the shape of one example.
      score_norm: [N] means over the chains of the norm of the score grad log p(x), in 1 / units of x.
    """

    sampler: str
    num_steps: int
    warm_up: int
    acceptance: float | None
    draws: np.ndarray
    log_density: Summary
    coordinates: Summary
    score_norm: np.ndarray

    def __str__(self) -> str:
        num_draws, num_chains = self.draws.shape[:2]
        lines = [f"{num_chains:,} chains of {self.num_steps:,} steps by {self.sampler!r}, {self.warm_up:,} of warm-up"]
        if self.acceptance is not None:
            lines.append(f"mean acceptance probability: {self.acceptance:.3f}")
        first, last = self.score_norm[0], self.score_norm[-1]
        lines.append(f"mean norm of the score: {first:.4g} in the first draws, {last:.4g} in the last")
        r_hat = self.coordinates.r_hat.ravel()
        shown = np.arange(r_hat.size)
        if r_hat.size > _NUM_SHOWN:
            lines.append(f"coordinates shown: the {_NUM_SHOWN} of {r_hat.size:,} with the largest R-hat")
            shown = np.sort(np.argsort(-np.nan_to_num(r_hat, nan=np.inf), kind="stable")[:_NUM_SHOWN])
        rows = {"log density": [number(float(value)) for value in self.log_density]}
        for i in shown:
            index = ", ".join(map(str, np.unravel_index(i, self.coordinates.r_hat.shape)))
            rows[f"x[{index}]"] = [number(float(values.ravel()[i])) for values in self.coordinates]
        columns = ["mean", "std", "5%", "95%", "ESS", "R-hat"]
        title = f"{num_draws * num_chains:,} draws"
        return tables.text("\n".join(lines), [Block(title, "", Table(columns, rows), [])]).rstrip()


def sample(
    key: jax.Array,
    log_density: LogDensity,
    x0: jax.Array,
    *,
    sampler: str = "mala",
    num_steps: int,
    step_size: float,
    warm_up: int | None = None,
    keep_every: int = 1,
    **parameters,
) -> tuple[jax.Array, Diagnostics]:
    """Run chains on a density, and diagnose them.

    Start the chains far apart, such as at draws from a broad density. R-hat then shows if some of them have not left
    their part of the space. The call takes memory for all states that it keeps: B num_steps / keep_every examples.

    Args:
      key: a single PRNG key, from which the key of each chain is derived.
      log_density: [B, ...] -> [B] log-densities in nats, up to a constant. It is compiled by JAX, and must treat the
        examples of a batch independently.
      x0: [B, ...] initial states of B chains, in floats.
      sampler: name of a row of `core.samplers.SAMPLERS`: "langevin", "mala", "hmc", "underdamped" or "annealed".
      num_steps: number of steps of each chain, with the warm-up.
      step_size: s, in squared units of x.
      warm_up: number of first steps that the diagnostics leave out. None: half of all steps. The sampler "annealed"
        anneals in the warm-up, and goes on with constant steps.
      keep_every: number of steps between the draws that are kept after the warm-up.
      **parameters: parameters of the sampler, such as num_leapfrog_steps=5 of "hmc".

    Returns:
      The final states [B, ...], and the `Diagnostics` of the chains.

    Raises:
      ValueError: an argument has a wrong value. The message begins with its name.
      TypeError: the sampler has no such parameter.
    """
    x0, warm_up = jnp.asarray(x0), num_steps // 2 if warm_up is None else warm_up
    _check(log_density, x0, sampler, num_steps, step_size, warm_up, keep_every, parameters)
    settings = (sampler, num_steps, warm_up, step_size, keep_every, tuple(parameters.items()))
    x, states, log_p, score_norm, acceptance = _run(check_key(key), x0, log_density, settings)
    draws = np.asarray(states)
    coordinates = draws.reshape(*draws.shape[:2], -1)
    parts = [
        _summary(coordinates[..., i : i + _COORDINATES_AT_ONCE])
        for i in range(0, coordinates.shape[-1], _COORDINATES_AT_ONCE)
    ]
    return x, Diagnostics(
        sampler=sampler,
        num_steps=num_steps,
        warm_up=warm_up,
        acceptance=None if acceptance is None else float(acceptance),
        draws=draws,
        log_density=_summary(np.asarray(log_p)),
        coordinates=Summary(*(np.concatenate(part).reshape(draws.shape[2:]) for part in zip(*parts, strict=True))),
        score_norm=np.asarray(score_norm),
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _run(key, x0, log_density, settings):
    """Run the chains. Return their ends, the draws and their log-densities, score norms, and the mean acceptance."""
    name, num_steps, warm_up, step_size, keep_every, parameters = settings
    index, row = jnp.arange(len(x0)), SAMPLERS[name]
    keys = [chain_keys(jax.random.fold_in(key, phase), index) for phase in range(2)]
    x, _ = row.kernel(keys[0], x0, log_density, num_steps=warm_up, step_size=step_size, **dict(parameters))
    kernel, parameters = (SAMPLERS[row.then].kernel, ()) if row.then else (row.kernel, parameters)
    chain = {"num_steps": num_steps - warm_up, "step_size": step_size, "keep_every": keep_every}
    x, trace = kernel(keys[1], x, log_density, **chain, **dict(parameters))
    states = trace.states[1 : 1 + chain["num_steps"] // keep_every]
    score, log_p = jax.lax.map(jax.grad(summed(log_density), has_aux=True), states)
    norm = jnp.sqrt(jnp.sum(score.reshape(*score.shape[:2], -1) ** 2, axis=-1)).mean(axis=1)
    return x, states, log_p, norm, None if trace.acceptance is None else trace.acceptance.mean()


def _summary(draws: np.ndarray) -> Summary:
    """Return the summary of draws [N, C, ...]."""
    low, high = np.percentile(draws, (5, 95), axis=(0, 1))
    moments = (function(draws, axis=(0, 1), dtype=np.float64) for function in (np.mean, np.std))
    return Summary(*moments, low, high, chain_diagnostics.effective_sample_size(draws), chain_diagnostics.r_hat(draws))


def _check(
    log_density: LogDensity,
    x0: jax.Array,
    sampler: str,
    num_steps: int,
    step_size: float,
    warm_up: int,
    keep_every: int,
    parameters: Mapping[str, Any],
) -> None:
    """Raise ValueError, or TypeError for an unknown parameter, if an argument of `sample` is wrong."""
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler: found {sampler!r}, expected {one_of(sampler, SAMPLERS)}")
    accepted = SAMPLERS[sampler].parameters
    for name in parameters:
        if name not in accepted:
            choices = f"one of {', '.join(accepted)}" if accepted else "none"
            expected = f"{choices} for the sampler {sampler!r}{did_you_mean(name, accepted)}"
            raise TypeError(f"{name}: found an unknown parameter, expected {expected}")
    if not (x0.ndim >= 2 and x0.size and jnp.issubdtype(x0.dtype, jnp.floating)):
        raise ValueError(f"x0: found {x0.dtype} of shape {x0.shape}, expected floats [B, ...], such as [B, D]")
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size: found {step_size}, expected a positive number")
    if keep_every < 1:
        raise ValueError(f"keep_every: found {keep_every}, expected 1 or more")
    if not 0 <= warm_up <= num_steps:
        raise ValueError(f"warm_up: found {warm_up}, expected 0 or more, and at most num_steps ({num_steps})")
    if (num_steps - warm_up) // keep_every < 4:
        expected = f"{warm_up + 4 * keep_every} or more, for 4 draws after the warm-up"
        raise ValueError(f"num_steps: found {num_steps}, expected {expected}")
    shape = jax.eval_shape(log_density, x0).shape
    if shape != x0.shape[:1]:
        raise ValueError(f"log_density: found a result of shape {shape}, expected {x0.shape[:1]}, one number per chain")
