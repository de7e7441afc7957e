"""The two MCMC revisions (Sec. 3.1), and functions that use them for training pairs, samples and reconstructions.

P~ and Q~ are the revised joint densities of the paper. Both are sampled with the current parameters, and the samples
are constants in the losses:

    P~ : z ~ N(0, I), x0 = g(z),             x~ = K_x Langevin steps on pi_alpha(x) from x0       -> pairs (x~, z)
    Q~ : x ~ data,    z0 ~ q_phi(z | x),     z~ = K_z Langevin steps on p_theta(z | x) from z0    -> pairs (x, z~)

The functions take networks whose parameters are already bound (see `core.densities`), and one PRNG key per chain.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import Trace, clipped, normal
from dualmcmc_jax.core.resampling import Resampling, Starts, resample
from dualmcmc_jax.core.samplers import SAMPLERS


class Synthesis(NamedTuple):
    """Samples of the revised joint P~.

    Attributes:
      z: [B, d] latents drawn from the prior; with resampling, those of the chosen proposals.
      generated: [B, ...] generator samples g(z).
      revised: [B, ...] final states x~ of the x-chains.
      trace: the `Trace` of the x-chains.
      starts: the `Starts` of the x-chains, or None without resampling.
    """

    z: jax.Array
    generated: jax.Array
    revised: jax.Array
    trace: Trace
    starts: Starts | None = None


class Inference(NamedTuple):
    """Samples of the revised joint Q~, given examples x.

    Attributes:
      start: [B, d] initial states z0 of the z-chains.
      z: [B, d] final states z~ of the z-chains.
      trace: the `Trace` of the z-chains.
    """

    start: jax.Array
    z: jax.Array
    trace: Trace


def revise_x(
    keys: jax.Array,
    energy: densities.Energy,
    x0: jax.Array,
    *,
    temperature: float,
    sampler: str = "langevin",
    clip_score: float = 0.0,
    **chain,
) -> tuple[jax.Array, Trace]:
    """Run x-chains: MCMC steps on the EBM pi_alpha(x) (Eq. 3).

    Args:
      keys: [B] keys, one per chain.
      energy: [B, ...] -> [B].
      x0: [B, ...] initial states.
      temperature: T of f = -energy / T, in units of energy.
      sampler: name of the sampler in `SAMPLERS`.
      clip_score: largest norm of the score of one example, in nats per unit of x (see `core.langevin.clipped`). 0:
        scores are not clipped.
      **chain: keyword arguments of the kernel, such as num_steps and step_size of `langevin`.

    Returns:
      The final states x~ [B, ...] and the `Trace` of the chains.
    """
    log_density = clipped(lambda x: densities.log_ebm(x, energy, temperature=temperature), clip_score)
    return SAMPLERS[sampler].kernel(keys, x0, log_density, **chain)


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
    """Run z-chains: MCMC steps on the generator's posterior p_theta(z | x) (Eq. 6).

    Args:
      keys: [B] keys, one per chain.
      decode: [B, d] -> [B, ...].
      x: [B, ...] examples to condition on.
      z0: [B, d] initial states.
      variance: sigma^2 of p_theta(x | z), in squared units of x.
      sampler: name of the sampler in `SAMPLERS`.
      **chain: keyword arguments of the kernel, such as num_steps and step_size of `langevin`.

    Returns:
      The final states z~ [B, d] and the `Trace` of the chains.
    """
    log_density = lambda z: densities.log_joint(x, z, decode, variance=variance)
    return SAMPLERS[sampler].kernel(keys, z0, log_density, **chain)


def synthesize(
    keys: jax.Array,
    decode: densities.Decode,
    energy: densities.Energy,
    *,
    latent_dim: int,
    init: Literal["generator", "noise"] | jax.Array = "generator",
    start_std: float = 0.0,
    temperature: float,
    resampling: Resampling | None = None,
    encode: densities.Encode | None = None,
    axis_name: str | None = None,
    dtype=jnp.float32,
    **chain,
) -> Synthesis:
    """Draw pairs (x~, z) from the revised joint P~ (Sec. 3.1): z ~ N(0, I), x0 = g(z), then x~ by `revise_x` from x0.

    The paper draws x0 from p_theta(x | z). The default start is the mean g(z) instead, as in the authors' code; pass
    start_std=sigma to start as in the paper.

    Args:
      keys: [B] keys, one per chain.
      decode: [B, d] -> [B, ...].
      energy: [B, ...] -> [B].
      latent_dim: d, the number of latent variables.
      init: where the x-chains start. "generator": at g(z), plus noise if start_std is not 0. "noise": at a draw of
        N(0, I), as in an EBM without a generator. An array [B, ...]: at these states.
      start_std: standard deviation of the normal noise that is added to g(z), in units of x. It applies only to
        init="generator".
      temperature: T of f = -energy / T, in units of energy.
      resampling: how the initial states are resampled (see `core.resampling`), or None. It needs init="generator".
      encode: [B, ...] -> mean [B, d] and log variance [B, d]. Needed only for resampling.
      axis_name: name of a mapped axis of devices, whose chains are resampled together, or None.
      dtype: dtype of z.
      **chain: further keyword arguments of `revise_x`, such as num_steps and step_size.

    Returns:
      A `Synthesis`.

    Raises:
      ValueError: resampling is given, and init is not "generator".
    """
    prior_keys, init_keys, x_keys = _split(keys, 3)
    if resampling is None:
        starts = None
        z = normal(prior_keys, (latent_dim,), dtype)
        generated = decode(z)
        noise = normal(init_keys, generated.shape[1:], generated.dtype)
        near_generated = generated + start_std * noise if start_std else generated
        x0 = {"generator": near_generated, "noise": noise}[init] if isinstance(init, str) else init
    elif not (isinstance(init, str) and init == "generator"):
        raise ValueError("init: found other states than those of the generator, expected 'generator' with resampling")
    else:
        scales = {"temperature": temperature, "latent_dim": latent_dim, "start_std": start_std, "dtype": dtype}
        starts = resample(prior_keys, decode, energy, encode, resampling, axis_name=axis_name, **scales)
        z, generated, x0 = starts.z, starts.generated, starts.x
    revised, trace = revise_x(x_keys, energy, x0, temperature=temperature, **chain)
    return Synthesis(z, generated, revised, trace, starts)


def infer(
    keys: jax.Array,
    encode: densities.Encode,
    decode: densities.Decode,
    x: jax.Array,
    *,
    init: Literal["encoder", "noise"] | jax.Array = "encoder",
    **chain,
) -> Inference:
    """Draw latents z~ from the revised joint Q~ given x (Sec. 3.1): z0 ~ q_phi(z | x), then z~ by `revise_z` from z0.

    Args:
      keys: [B] keys, one per chain.
      encode: [B, ...] -> mean [B, d] and log variance [B, d].
      decode: [B, d] -> [B, ...].
      x: [B, ...] examples.
      init: where the z-chains start. "encoder": at a draw of q_phi(z | x). "noise": at a draw of N(0, I). An array
        [B, d]: at these states.
      **chain: further keyword arguments of `revise_z`, such as variance, num_steps and step_size.

    Returns:
      An `Inference`.
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
    """Reconstruct examples from the start and from the end of their z-chains (Table 3 of the paper).

    For reconstructions, the authors' code starts the z-chain at the mean of q_phi(z | x): pass init=mean. By default
    the chain starts at a draw of q_phi(z | x), as in `infer`.

    Args:
      keys: [B] keys, one per chain.
      encode: [B, ...] -> mean [B, d] and log variance [B, d].
      decode: [B, d] -> [B, ...].
      x: [B, ...] examples.
      **settings: keyword arguments of `infer`.

    Returns:
      g(z0) and g(z~), [B, ...] each.
    """
    inference = infer(keys, encode, decode, x, **settings)
    return decode(inference.start), decode(inference.z)


def _split(keys: jax.Array, num: int) -> tuple[jax.Array, ...]:
    """Derive num keys from each key. Return num arrays of keys, [B] each."""
    return tuple(jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(num))
