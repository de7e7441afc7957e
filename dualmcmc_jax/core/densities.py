"""The three models as log-densities, in nats: pi_alpha(x), p_theta(x, z), q_phi(z | x).

An energy maps x [B, ...] to [B]; decode maps z [B, d] to the mean of x given z; all arguments named
log_var hold log variances.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Energy = Callable[[jax.Array], jax.Array]
Decode = Callable[[jax.Array], jax.Array]
Encode = Callable[[jax.Array], tuple[jax.Array, jax.Array]]

LOG_2PI = math.log(2 * math.pi)


def squared_norm(x: jax.Array) -> jax.Array:
    """Sum of squares of each example: [B, ...] -> [B]."""
    return jnp.sum(x**2, axis=tuple(range(1, x.ndim)))


def log_ebm(x: jax.Array, energy: Energy, *, temperature: float) -> jax.Array:
    """f_alpha(x) = -energy(x) / T, that is log pi_alpha(x) + log Z (Eq. 1): [B]."""
    return -energy(x) / temperature


def log_prior(z: jax.Array) -> jax.Array:
    """log N(z; 0, I): [B]."""
    return -0.5 * squared_norm(z) - 0.5 * z.shape[-1] * LOG_2PI


def log_likelihood(x: jax.Array, mean: jax.Array, *, variance: float) -> jax.Array:
    """log p_theta(x | z) = log N(x; mean, variance I) with mean = g(z) (Eq. 4): [B]."""
    normalizer = 0.5 * (x.size // x.shape[0]) * (LOG_2PI + math.log(variance))
    return -squared_norm(x - mean) / (2 * variance) - normalizer


def log_joint(x: jax.Array, z: jax.Array, decode: Decode, *, variance: float) -> jax.Array:
    """log p_theta(x, z) = log N(z; 0, I) + log N(x; g(z), variance I) (Eq. 4): [B].

    As a function of z it is log p_theta(z | x) up to a constant: the density of the z-chain (Eq. 6).
    """
    return log_prior(z) + log_likelihood(x, decode(z), variance=variance)


def log_posterior(z: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """log q_phi(z | x) = log N(z; mean, diag exp(log_var)) (Sec. 3.1): [B].

    The 1e-6 added to the divisor, as in the authors' code, keeps a collapsed variance finite.
    """
    log_density = -0.5 * (log_var + (z - mean) ** 2 / (jnp.exp(log_var) + 1e-6) + LOG_2PI)
    return jnp.sum(log_density, axis=-1)


def mean_squared_error(log_p: jax.Array, x: jax.Array, z: jax.Array, *, variance: float) -> jax.Array:
    """The squared error per element of x that log_p = log p_theta(x, z) contains: [B].

    Reads the reconstruction error off a z-chain's trace, at no further call of the generator.
    """
    size = x.size // x.shape[0]
    log_px_given_z = log_p - log_prior(z)
    return -2 * variance * log_px_given_z / size - variance * (LOG_2PI + math.log(variance))
