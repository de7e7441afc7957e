"""The densities of the paper's three models, as log-densities in nats.

| model | density |
|---|---|
| energy-based model (EBM) | pi_alpha(x) = exp(f_alpha(x)) / Z with f_alpha(x) = -energy(x) / T |
| generator | p_theta(x, z) = N(z; 0, I) N(x; g_theta(z), sigma^2 I) |
| inference model | q_phi(z | x) = N(z; mu_phi(x), diag V_phi(x)) |

The functions take networks whose parameters are already bound: `energy` maps x [B, ...] to [B], `decode` maps z [B, d]
to g(z) [B, ...], and `encode` maps x [B, ...] to the mean [B, d] and the log variance [B, d] of q(z | x).
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
    """Return the sum of squares of each example.

    Args:
      x: [B, ...] examples.

    Returns:
      [B] sums over all axes but the first.
    """
    return jnp.sum(x**2, axis=tuple(range(1, x.ndim)))


def log_ebm(x: jax.Array, energy: Energy, *, temperature: float) -> jax.Array:
    """Compute the unnormalized log-density of the EBM (Eq. 1): f_alpha(x) = -energy(x) / T.

    The temperature T is not in the paper. With T, Eq. 3 also describes the authors' code, which scales the gradient
    and the noise of an x-step separately: x <- x - 0.5 a^2 grad energy(x) + n N(0, I). This step is Eq. 3 with
    f = -energy / T, T = (n / a)^2 and step size s = n^2 / 2.

    Args:
      x: [B, ...] examples.
      energy: [B, ...] -> [B].
      temperature: T, in units of energy.

    Returns:
      [B] values of log pi_alpha(x) + log Z, in nats.
    """
    return -energy(x) / temperature


def log_prior(z: jax.Array) -> jax.Array:
    """Compute the log-density of the prior, log N(z; 0, I).

    Args:
      z: [B, d] latents.

    Returns:
      [B] log-densities, in nats.
    """
    return -0.5 * squared_norm(z) - 0.5 * z.shape[-1] * LOG_2PI


def log_likelihood(x: jax.Array, mean: jax.Array, *, variance: float) -> jax.Array:
    """Compute the log-likelihood of the generator (Eq. 4), log p_theta(x | z) = log N(x; g(z), sigma^2 I).

    Args:
      x: [B, ...] examples.
      mean: [B, ...] decoded latents g(z).
      variance: sigma^2, in squared units of x.

    Returns:
      [B] log-likelihoods, in nats.
    """
    normalizer = 0.5 * (x.size // x.shape[0]) * (LOG_2PI + math.log(variance))
    return -squared_norm(x - mean) / (2 * variance) - normalizer


def log_joint(x: jax.Array, z: jax.Array, decode: Decode, *, variance: float) -> jax.Array:
    """Compute the joint log-density of the generator (Eq. 4), log N(z; 0, I) + log N(x; g(z), sigma^2 I).

    For fixed x, log p_theta(x, z) equals log p_theta(z | x) up to a constant in z. The z-chain of Eq. 6 therefore uses
    log_joint as its log-density.

    Args:
      x: [B, ...] examples.
      z: [B, d] latents.
      decode: [B, d] -> [B, ...].
      variance: sigma^2, in squared units of x.

    Returns:
      [B] log-densities log p_theta(x, z), in nats.
    """
    return log_prior(z) + log_likelihood(x, decode(z), variance=variance)


def log_posterior(z: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Compute the log-density of the inference model (Sec. 3.1), log q_phi(z | x) = log N(z; mean, diag exp(log_var)).

    As in the authors' code, 1e-6 is added to the variance by which the squared error is divided. The log-density
    therefore stays finite if a variance underflows to 0. The authors' code calls the log variance log_sigma.

    Args:
      z: [B, d] latents.
      mean: [B, d] means of q(z | x).
      log_var: [B, d] log variances of q(z | x).

    Returns:
      [B] log-densities, in nats.
    """
    log_density = -0.5 * (log_var + (z - mean) ** 2 / (jnp.exp(log_var) + 1e-6) + LOG_2PI)
    return jnp.sum(log_density, axis=-1)


def mean_squared_error(log_p: jax.Array, x: jax.Array, z: jax.Array, *, variance: float) -> jax.Array:
    """Compute the reconstruction error |x - g(z)|^2 per element of x from a value of `log_joint`.

    The trace of a z-chain contains values of log_joint. The reconstruction error along the chain can therefore be
    computed without calling the generator again.

    Args:
      log_p: [B] values of log p_theta(x, z), in nats.
      x: [B, ...] examples.
      z: [B, d] latents.
      variance: sigma^2 used to compute log_p.

    Returns:
      [B] mean squared errors, in squared units of x.
    """
    size = x.size // x.shape[0]
    log_px_given_z = log_p - log_prior(z)
    return -2 * variance * log_px_given_z / size - variance * (LOG_2PI + math.log(variance))
