"""Resampling of the initial states of x-chains: one step of tempered sequential Monte Carlo on images and latents.

Langevin chains of 30 steps cannot move probability mass between separated modes. If the generator visits a mode too
often, so do the chains that start there, and the EBM learns a wrong weight for the mode. Resampling corrects the
weights before the chains start.

**The target.** The x-revision samples the joint Pi(x, z) = pi_alpha(x) q_phi(z | x) (Sec. 3.1). Its first factor is the
EBM. The second factor is normalized, so the marginal density of x is pi_alpha(x).

**The proposal.** Each chain proposes several initial states (z, x0). A proposal from the generator draws z ~ p(z) and
x0 ~ N(g(z), s0^2 I). A broad proposal draws x0 ~ N(0, S^2 I) and z ~ q_phi(z | x0). It reaches regions that the
generator never visits, where the energy would otherwise remain untrained. If a share e of the proposals is broad, the
density of the proposals as a whole is the mixture

    m(x0, z) = (1 - e) p(z) N(x0; g(z), s0^2 I) + e N(x0; 0, S^2 I) q_phi(z | x0).

**The weights.** The importance weight of a proposal is

    log w = f(x0) + log q_phi(z | x0) - log m(x0, z),    f = -energy / T.

The weights are exact for any generator and inference model, up to the constant log Z. Their variance is small if the
generator and the inference model fit the EBM. Here q_phi is N(mean, exp(log_var) + 1e-6): as in
`densities.log_posterior`, 1e-6 is added to the variance, but the density is normalized and broad proposals are drawn
from it.

**The power.** If the weights are uneven, a few proposals would replace all others. The weights are therefore raised to
the largest power beta <= 1 whose effective sample size, (sum w)^2 / sum w^2, is large enough. At beta = 1 the resampled
states are samples of the target, up to an error that falls with the number of proposals. At beta = 0 they are samples
of the proposal.

**The draw.** Systematic resampling chooses one proposal per chain. A proposal with normalized weight W is chosen
floor(B W) or ceil(B W) times for B chains, and B W times on average.

The reference for tempering by the effective sample size is Del Moral, Doucet & Jasra (2012), "An adaptive sequential
Monte Carlo method for approximate Bayesian computation"; for systematic resampling, Douc, Cappe & Moulines (2005),
"Comparison of resampling schemes for particle filtering".
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import normal

_HALVINGS = 20
"""Halvings of the interval [0, 1] in the search for the power. The power is exact to 2^-20."""


class Resampling(NamedTuple):
    """How the initial states of x-chains are proposed and chosen.

    Attributes:
      least_share: smallest effective sample size of the tempered weights, as a share of the number of chains; positive
        and at most num_proposals.
      num_proposals: F, the number of proposals of each chain.
      num_broad: how many of the F proposals are broad, fewer than F.
      broad_std: S, standard deviation of broad proposals, in units of x.
    """

    least_share: float
    num_proposals: int = 10
    num_broad: int = 0
    broad_std: float = 1.0


class Starts(NamedTuple):
    """Initial states of x-chains, chosen among proposals.

    Attributes:
      z: [B, d] latents.
      generated: [B, ...] generator samples g(z).
      x: [B, ...] initial states x0.
      from_prior: [B] bool. True if z was drawn from the prior, False for a broad proposal.
      power: scalar, beta. 1 means exact importance weights.
      effective_share: scalar, the effective sample size of the proposals at beta = 1, divided by the number of chains.
    """

    z: jax.Array
    generated: jax.Array
    x: jax.Array
    from_prior: jax.Array
    power: jax.Array
    effective_share: jax.Array


def effective_sample_size(log_weights: jax.Array) -> jax.Array:
    """Return the effective sample size of importance weights, (sum w)^2 / sum w^2 (Kong 1992).

    Args:
      log_weights: [M] logarithms of the weights, up to a constant.

    Returns:
      A scalar from 1 to M.
    """
    return jnp.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights))


def tempered_power(log_weights: jax.Array, least_size: float) -> jax.Array:
    """Return the largest power beta in [0, 1] with an effective sample size of w^beta of at least `least_size`.

    The effective sample size falls as beta rises, so bisection finds beta.

    Args:
      log_weights: [M] logarithms of the weights, up to a constant.
      least_size: the smallest effective sample size allowed, at most M.

    Returns:
      The scalar beta, exact to 2^-20. It is exactly 1 if the weights themselves satisfy the condition, and NaN if a
      weight is NaN.
    """

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        enough = effective_sample_size(tempered(log_weights, middle)) >= least_size
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    zero, one = jnp.zeros((), log_weights.dtype), jnp.ones((), log_weights.dtype)
    low, _ = lax.fori_loop(0, _HALVINGS, halve, (zero, one))
    power = jnp.where(effective_sample_size(log_weights) >= least_size, one, low)
    return jnp.where(jnp.isnan(log_weights).any(), jnp.nan, power)


def tempered(log_weights: jax.Array, power: jax.Array) -> jax.Array:
    """Return the logarithms of the weights [M], raised to a power. Weights of 0 remain 0, also if the power is 0."""
    return jnp.where(jnp.isneginf(log_weights), log_weights, power * log_weights)


def systematic(uniform: jax.Array, log_weights: jax.Array, num: int) -> jax.Array:
    """Choose `num` of M items by systematic resampling.

    Draw i is the item in whose part of [0, 1] the point (i + u) / num falls, where each item has a part as long as its
    normalized weight.

    Args:
      uniform: scalar u, a uniform random number in [0, 1).
      log_weights: [M] logarithms of the weights, up to a constant.
      num: number of items to choose.

    Returns:
      [num] indices of the items, in increasing order.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights))
    points = (jnp.arange(num) + uniform) / num
    return jnp.searchsorted(cumulative / cumulative[-1], points, side="right").clip(0, len(log_weights) - 1)


def log_weights(
    x0: jax.Array,
    z: jax.Array,
    generated: jax.Array,
    energy: densities.Energy,
    encode: densities.Encode,
    *,
    temperature: float,
    start_std: float,
    broad_share: float = 0.0,
    broad_std: float = 1.0,
) -> jax.Array:
    """Compute the logarithm of the importance weights of proposals (x0, z); the module docstring states the equation.

    Args:
      x0: [M, ...] proposed initial states.
      z: [M, d] their latents.
      generated: [M, ...] generator samples g(z).
      energy: [M, ...] -> [M].
      encode: [M, ...] -> mean [M, d] and log variance [M, d].
      temperature: T of f = -energy / T, in units of energy.
      start_std: s0, standard deviation of x0 around g(z), in units of x.
      broad_share: e, the share of broad proposals, at least 0 and below 1.
      broad_std: S, standard deviation of broad proposals, in units of x.

    Returns:
      [M] values of log w, in nats, up to log Z.
    """
    log_q = _log_q(z, *_posterior(encode, x0))
    log_m = densities.log_prior(z) + densities.log_likelihood(x0, generated, variance=start_std**2)
    if broad_share:
        log_broad = densities.log_likelihood(x0, jnp.zeros_like(x0), variance=broad_std**2) + log_q
        log_m = jnp.logaddexp(math.log1p(-broad_share) + log_m, math.log(broad_share) + log_broad)
    return densities.log_ebm(x0, energy, temperature=temperature) + log_q - log_m


def propose(
    keys: jax.Array,
    decode: densities.Decode,
    encode: densities.Encode,
    *,
    latent_dim: int,
    start_std: float,
    settings: Resampling,
    dtype=jnp.float32,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw initial states for chains: the proposals of the generator, followed by broad ones.

    Args:
      keys: [B] keys, one per chain.
      decode: [N, d] -> [N, ...].
      encode: [N, ...] -> mean [N, d] and log variance [N, d].
      latent_dim: d, the number of latent variables.
      start_std: s0, standard deviation of x0 around g(z), in units of x.
      settings: a `Resampling`.
      dtype: dtype of the latents.

    Returns:
      x0 [B, F, ...], z [B, F, d] and g(z) [B, F, ...]. The last num_broad proposals of each chain are broad.
    """
    num_chains, num_broad = len(keys), settings.num_broad
    z_key, x_key, broad_key, posterior_key = (jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(4))
    z = normal(z_key, (settings.num_proposals - num_broad, latent_dim), dtype)
    generated = _flat_call(decode, z)
    x0 = generated + start_std * normal(x_key, generated.shape[1:], generated.dtype)
    if num_broad:
        broad_x0 = settings.broad_std * normal(broad_key, (num_broad, *x0.shape[2:]), x0.dtype)
        mean, variance = _posterior(encode, broad_x0.reshape(num_chains * num_broad, *x0.shape[2:]))
        noise = normal(posterior_key, (num_broad, latent_dim), dtype)
        broad_z = mean.reshape(noise.shape) + jnp.sqrt(variance).reshape(noise.shape) * noise
        x0, z = jnp.concatenate([x0, broad_x0], axis=1), jnp.concatenate([z, broad_z], axis=1)
        generated = jnp.concatenate([generated, _flat_call(decode, broad_z)], axis=1)
    return x0, z, generated


def resample(
    keys: jax.Array,
    decode: densities.Decode,
    energy: densities.Energy,
    encode: densities.Encode,
    settings: Resampling,
    *,
    temperature: float,
    latent_dim: int,
    start_std: float,
    dtype=jnp.float32,
    axis_name: str | None = None,
) -> Starts:
    """Draw proposals for each chain, and choose one initial state per chain among the proposals of all chains.

    With `axis_name`, the chains are spread over the devices of this mapped axis. The choice is made among the proposals
    of all devices, so the result does not depend on the number of devices.

    Args:
      keys: [B] keys, one per chain.
      decode: [N, d] -> [N, ...].
      energy: [N, ...] -> [N].
      encode: [N, ...] -> mean [N, d] and log variance [N, d].
      settings: a `Resampling`.
      temperature: T of f = -energy / T, in units of energy.
      latent_dim: d, the number of latent variables.
      start_std: s0, standard deviation of x0 around g(z), in units of x. It must be positive.
      dtype: dtype of the latents.
      axis_name: name of the mapped axis of devices, or None.

    Returns:
      The `Starts` of the chains. All are constants: no gradient passes through them.
    """
    num_chains, num_proposals, offset = len(keys), settings.num_proposals, 0
    x0, z, generated = propose(
        keys, decode, encode, latent_dim=latent_dim, start_std=start_std, settings=settings, dtype=dtype
    )
    from_prior = jnp.broadcast_to(jnp.arange(num_proposals) < num_proposals - settings.num_broad, x0.shape[:2])
    proposals = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (x0, z, generated, from_prior))
    log_w = log_weights(
        *proposals[:3],
        energy,
        encode,
        temperature=temperature,
        start_std=start_std,
        broad_share=settings.num_broad / num_proposals,
        broad_std=settings.broad_std,
    )
    uniforms = jax.random.uniform(jax.random.fold_in(keys[0], 4), (1,), log_w.dtype)
    if axis_name is not None:
        offset = lax.axis_index(axis_name) * num_chains
        num_chains = num_chains * lax.axis_size(axis_name)
        proposals, log_w, uniforms = lax.all_gather((proposals, log_w, uniforms), axis_name, tiled=True)
    log_w = log_w - log_w.max()  # large numbers would lose digits when they are multiplied by the power
    power = tempered_power(log_w, settings.least_share * num_chains)
    indices = systematic(uniforms[0], tempered(log_w, power), num_chains)
    chosen = lax.dynamic_slice_in_dim(indices, offset, len(keys))
    x0, z, generated, from_prior = jax.tree.map(lambda a: a[chosen], proposals)
    starts = Starts(z, generated, x0, from_prior, power, effective_sample_size(log_w) / num_chains)
    return lax.stop_gradient(starts)


def _posterior(encode: densities.Encode, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean [N, d] and the variance [N, d], with 1e-6 added, of q(z | x)."""
    mean, log_var = encode(x)
    return mean, jnp.exp(log_var) + 1e-6


def _log_q(z: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    """Return the log-density [N] of N(mean, diag variance) at z [N, d]."""
    return -0.5 * jnp.sum(jnp.log(variance) + (z - mean) ** 2 / variance + densities.LOG_2PI, axis=-1)


def _flat_call(network, z: jax.Array) -> jax.Array:
    """Apply a network to z [B, F, d] as to one batch of B F latents, and return its output [B, F, ...]."""
    out = network(z.reshape(-1, z.shape[-1]))
    return out.reshape(*z.shape[:2], *out.shape[1:])
