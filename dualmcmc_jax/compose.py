"""How do I combine densities from Python? Products and mixtures of models and of functions, as log-densities.

A log-density is a function x [B, ...] -> [B] in nats, up to a constant. `dualmcmc_jax.sample` draws from it.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dualmcmc_jax.core.langevin import LogDensity
from dualmcmc_jax.model import BoundModel, Model

Density = Model | BoundModel | LogDensity
"""A model, whose EBM is meant, or a log-density: x [B, ...] -> [B]."""


def product(*densities: Density, weights: Sequence[float] | None = None) -> LogDensity:
    """Return the log-density of a product, log p(x) = sum_i w_i log p_i(x) + const.

    The energies of EBMs add up: x is likely if all factors say so. Unknown log partition functions only change the
    constant. Any function of x may be a factor, such as the log-probability of a class or a penalty on a property.

    Args:
      *densities: models, or functions x [B, ...] -> [B] in nats. A model stands for the log-density of its EBM,
        -energy(x) / T, with images in [-1, 1].
      weights: one number w_i per density; None: all 1. A weight below 1 flattens a factor, and a negative weight
        divides by it, which need not give a density.

    Returns:
      The log-density x [B, ...] -> [B], up to a constant. Create it once and use it again: `dualmcmc_jax.sample`
      compiles its chains anew for each function.

    Raises:
      ValueError: there are no densities, models differ in the shape of their examples, or the weights are not one
        number per density.
      TypeError: a density is neither a model nor a function.

    Example:
      >>> dark_right = lambda x: -2e4 * jnp.mean((x[:, :, 5:] + 1) ** 2, axis=(1, 2, 3))
      >>> log_density = dualmcmc_jax.product(model, dark_right)
    """
    log_densities = _log_densities(densities)
    weights = _numbers("weights", weights, len(densities), default=1.0)
    return lambda x: sum(weight * log_p(x) for weight, log_p in zip(weights, log_densities, strict=True))


def mixture(*densities: Density, log_partitions: Sequence[float], weights: Sequence[float] | None = None) -> LogDensity:
    """Return the log-density of a mixture, log p(x) = log sum_i w_i p_i(x).

    x is likely if one component says so. An EBM only knows exp(-energy / T) = Z p(x), so a mixture of EBMs needs their
    log partition functions: otherwise, a constant that is added to one energy would change the share of its component.

    Args:
      *densities: models, or functions x [B, ...] -> [B] in nats, as in `product`.
      log_partitions: log Z_i of each density in nats, the logarithm of the integral of exp(log-density): 0 for a
        normalized density. In two dimensions, it is a sum over a grid (`metrics.quadrature`); otherwise, the evaluation
        with `evaluation.ais_temperatures` estimates it as likelihood/ebm/log_z_from_below and log_z_from_above.
      weights: the share w_i of each component, positive numbers, which are divided by their sum; None: equal shares.

    Returns:
      The log-density x [B, ...] -> [B], which is normalized if the log partition functions are exact. Create it once
      and use it again, as in `product`.

    Raises:
      ValueError: as in `product`, or a weight is not positive.
      TypeError: a density is neither a model nor a function.
    """
    log_densities = _log_densities(densities)
    log_partitions = _numbers("log_partitions", log_partitions, len(densities))
    weights = _numbers("weights", weights, len(densities), default=1.0)
    if min(weights) <= 0:
        raise ValueError(f"weights: found {min(weights)}, expected positive numbers")
    log_factors = [math.log(w / sum(weights)) - log_z for w, log_z in zip(weights, log_partitions, strict=True)]

    def log_density(x):
        terms = [log_p(x) + log_factor for log_p, log_factor in zip(log_densities, log_factors, strict=True)]
        return jax.nn.logsumexp(jnp.stack(terms), axis=0)

    return log_density


def _log_densities(densities: Sequence[Density]) -> list[LogDensity]:
    """Return the functions of densities. The networks of models are bound once, outside of the chains' loops."""
    if not densities:
        raise ValueError("densities: found none, expected 1 or more")
    shapes = {tuple((d.run_config if isinstance(d, Model) else d.config).data.shape) for d in densities if _is_model(d)}
    if len(shapes) > 1:
        found = " and ".join(map(str, sorted(shapes)))
        raise ValueError(f"densities: found models of examples of the shapes {found}, expected equal shapes")
    for density in densities:
        if not (_is_model(density) or callable(density)):
            found = type(density).__name__
            raise TypeError(f"densities: found {found}, expected models or functions x [B, ...] -> [B]")
    return [_log_density(density) for density in densities]


def _is_model(density: Density) -> bool:
    return isinstance(density, Model | BoundModel)


def _log_density(density: Density) -> LogDensity:
    bound = density.bound() if isinstance(density, Model) else density
    log_density: Callable = bound.log_density if isinstance(bound, BoundModel) else bound

    def checked(x):
        log_p = log_density(x)
        if jnp.shape(log_p) != x.shape[:1]:
            found = f"a result of shape {jnp.shape(log_p)} from {getattr(density, '__name__', 'a density')}"
            raise ValueError(f"densities: found {found}, expected {x.shape[:1]}, one number per example")
        return log_p

    return checked


def _numbers(name: str, values: Sequence[float] | None, num: int, *, default: float | None = None) -> list[float]:
    """Return one finite float per density. Raise ValueError if values are something else."""
    values = [default] * num if values is None and default is not None else values
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"{name}: found {values!r}, expected {num} numbers, one per density") from None
    if len(numbers) != num or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}: found {numbers}, expected {num} finite numbers, one per density")
    return numbers
