"""Posterior sampling of x from an observation y = A x + s N(0, I), by a z-chain and then an x-chain.

    z-chain:  p(z | y)  proportional to  N(z; 0, I) N(y; A g(z), sigma^2 A A^T + s^2 I)
    x-chain:  pi(x | y) proportional to  exp(-energy(x) / T) N(y; A x, s^2 I)

The likelihood of z integrates over x: the generator says x = g(z) + sigma N(0, I), so y given z has the generator's own
residual sigma, seen through A, besides the noise s of the observation. The x-chain starts at E[x | z, y], which agrees
with the observation. With s = 0, it moves in the null space of A: every state satisfies A x = y.

The functions take networks whose parameters are already bound (see `core.densities`), and one PRNG key per chain.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import LogDensity, Trace, clipped, normal
from dualmcmc_jax.core.operators import Operator
from dualmcmc_jax.core.samplers import SAMPLERS

STIFFNESS = 0.1
"""Largest product of step size and curvature of the observation term along the directions that are observed."""


class Restored(NamedTuple):
    """The ends of both chains for a batch of observations.

    Attributes:
      z: [B, d] final states of the z-chains.
      generated: [B, ...] g(z), the answers of the generator alone.
      start: [B, ...] initial states of the x-chains, E[x | z, y] under the generator.
      x: [B, ...] final states of the x-chains.
      z_trace: the `Trace` of the z-chains. Its log-density is log p(z | y), up to a constant.
      x_trace: the `Trace` of the x-chains. Its log-density is log pi(x | y), up to a constant.
    """

    z: jax.Array
    generated: jax.Array
    start: jax.Array
    x: jax.Array
    z_trace: Trace
    x_trace: Trace


def log_likelihood(
    y: jax.Array, x: jax.Array, operator: Operator, *, noise_std: float, variance: float = 0.0
) -> jax.Array:
    """Compute log N(y; A x, variance A A^T + noise_std^2 I), up to a constant.

    Args:
      y: [B, ...] observations, in the range of A.
      x: [B, ...] examples.
      operator: A.
      noise_std: s, the standard deviation of the observation's noise, in units of y.
      variance: the variance of what x leaves open, in squared units of x. It and noise_std must not both be 0.

    Returns:
      [B] log-likelihoods in nats, without terms that do not depend on x.
    """
    residual = y - operator(x)
    weighted = operator.gram(residual, lambda w: 1 / (variance * w + noise_std**2))
    return -0.5 * jnp.sum(residual * weighted, axis=tuple(range(1, y.ndim)))


def log_posterior_z(
    z: jax.Array, y: jax.Array, decode: densities.Decode, operator: Operator, *, noise_std: float, variance: float
) -> jax.Array:
    """Compute log p(z | y) up to a constant: log N(z; 0, I) + log N(y; A g(z), sigma^2 A A^T + s^2 I).

    Args:
      z: [B, d] latents.
      y: [B, ...] observations.
      decode: [B, d] -> [B, ...].
      operator: A.
      noise_std: s, in units of y.
      variance: sigma^2 of p_theta(x | z), in squared units of x.

    Returns:
      [B] log-densities, in nats.
    """
    likelihood = log_likelihood(y, decode(z), operator, noise_std=noise_std, variance=variance)
    return densities.log_prior(z) + likelihood


def log_posterior_x(
    x: jax.Array,
    y: jax.Array,
    energy: densities.Energy,
    operator: Operator,
    *,
    noise_std: float,
    temperature: float,
    clip_score: float = 0.0,
) -> jax.Array:
    """Compute log pi(x | y) up to a constant: -energy(x) / T - |y - A x|^2 / (2 s^2).

    Args:
      x: [B, ...] examples.
      y: [B, ...] observations.
      energy: [B, ...] -> [B].
      operator: A.
      noise_std: s, in units of y. 0: there is no observation term, and x must satisfy A x = y by construction.
      temperature: T, in units of energy.
      clip_score: largest norm of the score of the EBM (see `core.langevin.clipped`). 0: scores are not clipped.

    Returns:
      [B] log-densities, in nats.
    """
    log_p = clipped(lambda x: densities.log_ebm(x, energy, temperature=temperature), clip_score)(x)
    return log_p + log_likelihood(y, x, operator, noise_std=noise_std) if noise_std else log_p


def consistent(x: jax.Array, y: jax.Array, operator: Operator, *, noise_std: float, variance: float) -> jax.Array:
    """Return E[x | y] if x ~ N(m, variance I): m + variance A^T (variance A A^T + s^2 I)^-1 (y - A m).

    Args:
      x: [B, ...] means m.
      y: [B, ...] observations.
      operator: A.
      noise_std: s, in units of y. 0: the result satisfies A x = y.
      variance: in squared units of x.
    """
    correction = operator.gram(y - operator(x), lambda w: variance / (variance * w + noise_std**2))
    return x + operator.adjoint(correction, x.shape[1:])


def propose_z(
    keys: jax.Array,
    y: jax.Array,
    decode: densities.Decode,
    encode: densities.Encode,
    operator: Operator,
    *,
    num: int,
    latent_dim: int,
    shape: tuple[int, ...],
    noise_std: float,
    variance: float,
    unroll: int = 1,
) -> jax.Array:
    """Draw initial states of z-chains by importance resampling.

    Half of the proposals are draws of the prior, and half are draws of q(z | A^+ y), where A^+ y is the smallest x that
    explains the observation. One of the proposals is drawn with probabilities proportional to p(z | y) / q(z), where q
    is the mixture from which the proposals come.

    Args:
      keys: [B] keys, one per chain.
      y: [B, ...] observations.
      decode: [B, d] -> [B, ...].
      encode: [B, ...] -> mean [B, d] and log variance [B, d].
      operator: A.
      num: number of proposals of each kind per chain, at least 1.
      latent_dim: d.
      shape: shape of one example x.
      noise_std: s, in units of y.
      variance: sigma^2 of p_theta(x | z), in squared units of x.
      unroll: proposals per iteration of the compiled loop. It affects only speed.

    Returns:
      z [B, d].
    """
    prior_keys, encoder_keys, choice_keys = _split(keys, 3)
    mean, log_var = (part[:, None] for part in encode(operator.first_guess(y, shape)))
    prior = normal(prior_keys, (num, latent_dim), y.dtype)
    inferred = mean + jnp.exp(0.5 * log_var) * normal(encoder_keys, (num, latent_dim), y.dtype)
    z = jnp.concatenate([prior, inferred], axis=1)  # [B, 2 num, d]

    def log_weight(z):  # of one proposal per chain, so that a call of the generator has B examples
        of_prior = densities.log_prior(z)
        of_encoder = densities.log_posterior(z, mean[:, 0], log_var[:, 0])
        log_p = log_posterior_z(z, y, decode, operator, noise_std=noise_std, variance=variance)
        return log_p - jnp.logaddexp(of_prior, of_encoder)

    each = lambda _, z: (None, log_weight(z))
    _, log_w = jax.lax.scan(each, None, jnp.moveaxis(z, 1, 0), unroll=min(unroll, 2 * num))
    log_w = log_w.T  # [B, 2 num]
    chosen = jax.vmap(jax.random.categorical)(choice_keys, jnp.nan_to_num(log_w, nan=-jnp.inf))
    return jnp.take_along_axis(z, chosen[:, None, None], axis=1)[:, 0]


def run_x_chain(
    keys: jax.Array,
    x0: jax.Array,
    log_density: LogDensity,
    operator: Operator,
    *,
    noise_std: float,
    sampler: str,
    step_size: float,
    **chain,
) -> tuple[jax.Array, Trace]:
    """Run x-chains with smaller steps along the directions that are observed.

    The observation term has the curvature w / s^2 along the right singular vector of A with the squared singular value
    w. A step size h is stable only below 2 s^2 / w. The chains therefore run in coordinates u with x = x0 + L u, where
    L shortens these directions: the step size along them is

        h_w = h / (1 + h w / (STIFFNESS s^2)),

    so that h_w w / s^2 < STIFFNESS for every h. For the sampler "annealed", h in the denominator is that of the first
    step, which is the largest. All other directions keep the step size h. The change of coordinates is
    linear, so the density of x is the same, and every kernel, with or without a Metropolis correction, samples it. With
    s = 0, L is the projection onto the null space of A.

    Args:
      keys: [B] keys, one per chain.
      x0: [B, ...] initial states. With noise_std = 0, A x0 = y.
      log_density: [B, ...] -> [B], the log-density of x given y.
      operator: A.
      noise_std: s, in units of y.
      sampler: name of the sampler in `SAMPLERS`.
      step_size: h, in squared units of x.
      **chain: further keyword arguments of the kernel, such as num_steps.

    Returns:
      The final states [B, ...] and the `Trace` of the chains.
    """

    annealing = SAMPLERS[sampler].parameters.get("step_annealing", 1)
    largest_step = step_size * chain.get("step_annealing", annealing)

    def shrink(w):  # sqrt(h_w / h) - 1
        return (1 / jnp.sqrt(1 + largest_step * w / (STIFFNESS * noise_std**2)) if noise_std else 0 * w) - 1

    to_x = lambda u: x0 + u + operator.row_space(u, shrink)
    kernel = SAMPLERS[sampler].kernel
    u, trace = kernel(keys, jnp.zeros_like(x0), lambda u: log_density(to_x(u)), step_size=step_size, **chain)
    if trace.states is not None:
        trace = trace._replace(states=jax.lax.map(to_x, trace.states))
    return to_x(u), trace


def restore(
    keys: jax.Array,
    y: jax.Array,
    operator: Operator,
    energy: densities.Energy,
    decode: densities.Decode,
    encode: densities.Encode,
    *,
    noise_std: float,
    variance: float,
    temperature: float,
    latent_dim: int,
    shape: tuple[int, ...],
    proposals: int,
    clip_score: float = 0.0,
    z_sampler: str,
    z_chain: Mapping[str, Any],
    **x_chain,
) -> Restored:
    """Draw x given y = A x + s N(0, I): a z-chain on p(z | y), and an x-chain on pi(x | y) from E[x | z, y].

    Args:
      keys: [B] keys, one per chain.
      y: [B, ...] observations.
      operator: A.
      energy: [B, ...] -> [B].
      decode: [B, d] -> [B, ...].
      encode: [B, ...] -> mean [B, d] and log variance [B, d].
      noise_std: s, the standard deviation of the observation's noise, in units of y. 0: every result satisfies A x = y.
      variance: sigma^2 of p_theta(x | z), in squared units of x.
      temperature: T of f = -energy / T, in units of energy.
      latent_dim: d.
      shape: shape of one example x.
      proposals: number of initial states of the z-chain that are proposed by the prior, and as many by the encoder.
      clip_score: largest norm of the EBM's score in the x-chain (see `core.langevin.clipped`). 0: no clipping.
      z_sampler: name of the z-chain's sampler in `SAMPLERS`.
      z_chain: keyword arguments of its kernel, such as num_steps and step_size.
      **x_chain: sampler and step_size of the x-chain, and further keyword arguments of its kernel, such as num_steps.

    Returns:
      A `Restored`.
    """
    start_keys, z_keys, x_keys = _split(keys, 3)
    y = operator.gram(y, jnp.ones_like)  # drops what A cannot produce, such as values at hidden places
    scales = {"noise_std": noise_std, "variance": variance}
    proposed = {"num": proposals, "latent_dim": latent_dim, "shape": shape, "unroll": z_chain.get("unroll", 1)}
    z0 = propose_z(start_keys, y, decode, encode, operator, **proposed, **scales)
    log_p_z = lambda z: log_posterior_z(z, y, decode, operator, **scales)
    z, z_trace = SAMPLERS[z_sampler].kernel(z_keys, z0, log_p_z, **z_chain)
    generated = decode(z)
    start = consistent(generated, y, operator, **scales)
    of_ebm = {"temperature": temperature, "clip_score": clip_score}
    log_p_x = lambda x: log_posterior_x(x, y, energy, operator, noise_std=noise_std, **of_ebm)
    x, x_trace = run_x_chain(x_keys, start, log_p_x, operator, noise_std=noise_std, **x_chain)
    return Restored(z, generated, start, x, z_trace, x_trace)


def misfit(y: jax.Array, x: jax.Array, operator: Operator) -> jax.Array:
    """Return the root mean square of y - A x over the observed values, in units of y. It is about s if x fits y.

    Args:
      y: [B, ...] observations.
      x: [B, ...] examples.
      operator: A.

    Returns:
      [B] numbers.
    """
    residual = operator.gram(y, jnp.ones_like) - operator(x)
    is_observed = operator.eigenvalues > 0
    if operator.basis is None:
        is_observed = jnp.broadcast_to(is_observed, y.shape[1:])
    return jnp.sqrt(densities.squared_norm(residual) / is_observed.sum())


def _split(keys: jax.Array, num: int) -> tuple[jax.Array, ...]:
    """Derive num keys from each key. Return num arrays of keys, [B] each."""
    return tuple(jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(num))
