"""The two MCMC revisions (Sec. 3.1) and what is made of them: pairs for learning, samples, reconstructions.

Everything is keyed per chain: keys [B], one for each example. x is [B, ...], z is [B, d].
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import Trace, normal
from dualmcmc_jax.core.samplers import SAMPLERS


class Synthesis(NamedTuple):
    """Model pairs: z [B, d], generated = g(z) [B, ...], revised = x~ [B, ...] and the x-chain's trace."""

    z: jax.Array
    generated: jax.Array
    revised: jax.Array
    trace: Trace


class Inference(NamedTuple):
    """Data pairs: start = z0 [B, d], z = z~ [B, d] and the z-chain's trace."""

    start: jax.Array
    z: jax.Array
    trace: Trace


def revise_x(
    keys: jax.Array, energy: densities.Energy, x0: jax.Array, *, temperature: float, sampler: str = "langevin", **chain
) -> tuple[jax.Array, Trace]:
    """Run the x-chain: MCMC steps on pi_alpha(x) from x0 (Eq. 3).

    Args:
      keys: [B] keys, one per chain.
      energy: x [B, ...] -> [B].
      x0: [B, ...] initial states.
      temperature: T of f = -energy / T.
      sampler: a name in `SAMPLERS`.
      **chain: keyword arguments of that kernel.

    Returns:
      The revised states [B, ...] and the chain's Trace.
    """
    log_density = lambda x: densities.log_ebm(x, energy, temperature=temperature)
    return SAMPLERS[sampler](keys, x0, log_density, **chain)


def revise_z(
    keys: jax.Array,
    decode: densities.Decode,
    x: jax.Array,
    z0: jax.Array,
    *,
    variance: float,
    sampler: str = "langevin",
    **chain,
) -> tuple[jax.Array, Trace]:
    """Run the z-chain: MCMC steps on p_theta(z | x) from z0 (Eq. 6).

    Args:
      keys: [B] keys, one per chain.
      decode: z [B, d] -> g(z) [B, ...].
      x: [B, ...] examples to condition on.
      z0: [B, d] initial states.
      variance: sigma^2 of p(x | z).
      sampler: a name in `SAMPLERS`.
      **chain: keyword arguments of that kernel.

    Returns:
      The revised latents [B, d] and the chain's Trace.
    """
    log_density = lambda z: densities.log_joint(x, z, decode, variance=variance)
    return SAMPLERS[sampler](keys, z0, log_density, **chain)


def synthesize(
    keys: jax.Array,
    decode: densities.Decode,
    energy: densities.Energy,
    *,
    latent_dim: int,
    init: Literal["generator", "noise"] | jax.Array = "generator",
    start_std: float = 0.0,
    dtype=jnp.float32,
    **chain,
) -> Synthesis:
    """Draws from the revised joint P~: z ~ N(0, I), x0 = g(z), then x~ = `revise_x` of x0 (Sec. 3.1).

    With start_std, x0 ~ N(g(z), start_std^2 I): sigma makes it a draw of p_theta(x | z), as the paper writes. With
    init="noise" the chain starts at N(0, I) instead of g(z), as an EBM without a generator does; with an array
    [B, ...], there.
    """
    prior_keys, init_keys, x_keys = _split(keys, 3)
    z = normal(prior_keys, (latent_dim,), dtype)
    generated = decode(z)
    noise = normal(init_keys, generated.shape[1:], generated.dtype)
    near = generated + start_std * noise if start_std else generated
    x0 = {"generator": near, "noise": noise}[init] if isinstance(init, str) else init
    revised, trace = revise_x(x_keys, energy, x0, **chain)
    return Synthesis(z, generated, revised, trace)


def infer(
    keys: jax.Array,
    encode: densities.Encode,
    decode: densities.Decode,
    x: jax.Array,
    *,
    init: Literal["encoder", "noise"] | jax.Array = "encoder",
    **chain,
) -> Inference:
    """Draws from the revised joint Q~: z0 ~ q_phi(z | x), then z~ = `revise_z` of z0 (Sec. 3.1).

    With init="noise" the chain starts at z0 ~ N(0, I) instead; with an array [B, d], there.
    """
    init_keys, z_keys = _split(keys, 2)
    mean, log_var = encode(x)
    noise = normal(init_keys, mean.shape[1:], mean.dtype)
    inferred = mean + jnp.exp(0.5 * log_var) * noise
    z0 = {"encoder": inferred, "noise": noise}[init] if isinstance(init, str) else init
    z, trace = revise_z(z_keys, decode, x, z0, **chain)
    return Inference(z0, z, trace)


def reconstruct(
    keys: jax.Array, encode: densities.Encode, decode: densities.Decode, x: jax.Array, **settings
) -> tuple[jax.Array, jax.Array]:
    """Decode z0 and z~ of `infer`, which takes the same keyword arguments (Table 3)."""
    inference = infer(keys, encode, decode, x, **settings)
    return decode(inference.start), decode(inference.z)


def _split(keys: jax.Array, num: int) -> tuple[jax.Array, ...]:
    return tuple(jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(num))
