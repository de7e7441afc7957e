"""The losses of Dual-MCMC Teaching (Eq. 7, 10 and 15) and of the baselines, as means over a batch.

The paper's losses use data pairs (x, z~) drawn from Q~ and model pairs (x~, z) drawn from P~ (see `core.sampling`). The
pairs are constants. Terms that do not depend on the trained network, such as the entropies of P~ and Q~, are left out.
With weights of 1, the gradient of each loss equals that of its KL divergences, up to a constant factor that the
docstring states. In `elbo_loss` and `generated_loss`, the gradient also passes through the samples.

Each loss is a weighted sum of named terms. The divergences of the paper have weight 1 for both terms; the authors'
recipe uses other weights (see `configs/default.py`). A term of weight 0 is not computed. Every function returns the
loss and a dict of the unweighted terms that were computed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dualmcmc_jax.core import densities

Pair = tuple[jax.Array, jax.Array]
Loss = tuple[jax.Array | float, dict[str, jax.Array]]


def energy_loss(
    energy: densities.Energy,
    x: jax.Array,
    x_revised: jax.Array,
    *,
    temperature: float,
    data_weight: float,
    model_weight: float,
) -> Loss:
    """Compute the loss of the EBM (Eq. 7), KL(Q~, Pi) - KL(P~, Pi).

    With weights of 1, the loss is mean f(x~) - mean f(x), where f = -energy / T. The log partition function is the same
    in both divergences and cancels.

    Args:
      energy: [B, ...] -> [B], the network to train.
      x: [B, ...] data.
      x_revised: [B, ...] final states x~ of the x-chains.
      temperature: T, in units of energy.
      data_weight: weight of the term energy_data.
      model_weight: weight of the term energy_model, which is subtracted.

    Returns:
      The loss, and the terms energy_data and energy_model: the mean energies of x and of x~, before division by T.
    """
    gap, terms = _sum(
        energy_data=(data_weight, lambda: jnp.mean(energy(x))),
        energy_model=(-model_weight, lambda: jnp.mean(energy(x_revised))),
    )
    return gap / temperature, terms


def generator_loss(
    decode: densities.Decode,
    data: Pair,
    model: Pair,
    *,
    data_weight: float,
    model_weight: float,
    model_mask: jax.Array | None = None,
) -> Loss:
    """Compute the loss of the generator (Eq. 10), KL(Q~, P) + KL(P~, P), times 2 sigma^2.

    With weights of 1, the loss is mean |x - g(z~)|^2 + mean |x~ - g(z)|^2. The factor 2 sigma^2 follows the authors'
    code. Adam is nearly invariant to this factor, but the L2 term that is added to the gradient is not.

    The generator is called separately on z~ and on z. With batch statistics, one call on both would be a different
    function.

    Args:
      decode: [B, d] -> [B, ...], the network to train.
      data: the data pairs (x [B, ...], z~ [B, d]).
      model: the model pairs (x~ [B, ...], z [B, d]).
      data_weight: weight of the term error_data.
      model_weight: weight of the term error_model.
      model_mask: [B] bool, or None. A model pair with False adds 0 to the sum over the batch.

    Returns:
      The loss, and the terms error_data and error_model: the means of |x - g(z~)|^2 and of |x~ - g(z)|^2.
    """
    (x, z_revised), (x_revised, z) = data, model
    return _sum(
        error_data=(data_weight, lambda: jnp.mean(densities.squared_norm(x - decode(z_revised)))),
        error_model=(model_weight, lambda: _masked_mean(densities.squared_norm(x_revised - decode(z)), model_mask)),
    )


def encoder_loss(
    encode: densities.Encode,
    data: Pair,
    model: Pair,
    *,
    data_weight: float,
    model_weight: float,
    model_mask: jax.Array | None = None,
) -> Loss:
    """Compute the loss of the inference model (Eq. 15), KL(Q~, Q) + KL(P~, Pi).

    With weights of 1, the loss is -mean log q_phi(z~ | x) - mean log q_phi(z | x~), each without the constant
    d/2 log 2 pi.

    Args:
      encode: [B, ...] -> mean [B, d] and log variance [B, d], the network to train.
      data: the data pairs (x [B, ...], z~ [B, d]).
      model: the model pairs (x~ [B, ...], z [B, d]).
      data_weight: weight of the term nats_data.
      model_weight: weight of the term nats_model.
      model_mask: [B] bool, or None. A model pair with False adds 0 to the sum over the batch.

    Returns:
      The loss, and the terms nats_data and nats_model: the mean negative log-densities of the data pairs and of the
      model pairs, in nats.
    """
    return _sum(
        nats_data=(data_weight, lambda: _nats(encode, *data)),
        nats_model=(model_weight, lambda: _nats(encode, *model, model_mask)),
    )


def elbo_loss(
    encode: densities.Encode,
    decode: densities.Decode,
    x: jax.Array,
    noise: jax.Array,
    *,
    variance: float,
    weight: float,
) -> Loss:
    """Compute the loss of a variational autoencoder (Kingma & Welling 2014), KL(Q, P), times 2 sigma^2.

    The loss is the negative evidence lower bound without constants: mean |x - g(z)|^2 + 2 sigma^2 mean
    KL(q_phi(z | x), N(0, I)). The latents are reparameterized, z = mean + std * noise, so the gradient reaches the
    inference model through z.

    Args:
      encode: [B, ...] -> mean [B, d] and log variance [B, d], a network to train.
      decode: [B, d] -> [B, ...], a network to train.
      x: [B, ...] data.
      noise: [B, d] standard normal numbers.
      variance: sigma^2 of p_theta(x | z), in squared units of x.
      weight: weight of the term elbo.

    Returns:
      The loss, and the term elbo: the two terms above added up.
    """

    def term():
        mean, log_var = encode(x)
        error = densities.squared_norm(x - decode(mean + jnp.exp(0.5 * log_var) * noise))
        divergence = 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - log_var - 1, axis=-1)
        return jnp.mean(error + 2 * variance * divergence)

    return _sum(elbo=(weight, term))


def generated_loss(
    energy: densities.Energy,
    decode: densities.Decode,
    encode: densities.Encode,
    z: jax.Array,
    *,
    temperature: float,
    energy_weight: float,
    posterior_weight: float,
) -> Loss:
    """Compute KL(P, Pi) of generated samples g(z), through which the gradient reaches the generator (Han et al. 2019).

    With weights of 1, the loss is -mean f(g(z)) - mean log q_phi(z | g(z)) without the constant d/2 log 2 pi, where
    f = -energy / T. The first term moves the generator's samples to low energies. The second term keeps the samples
    diverse: up to a constant, the mean of log q_phi(z | g(z)) is a lower bound of the entropy of the samples. The loss
    trains the generator and the inference model. The energy is held fixed.

    Args:
      energy: [B, ...] -> [B], a constant network.
      decode: [B, d] -> [B, ...], a network to train.
      encode: [B, ...] -> mean [B, d] and log variance [B, d], a network to train.
      z: [B, d] latents drawn from the prior.
      temperature: T, in units of energy.
      energy_weight: weight of the term energy_generated, which is divided by T.
      posterior_weight: weight of the term nats_generated.

    Returns:
      The loss, and the terms energy_generated and nats_generated: the mean energy of g(z), before division by T, and
      the mean of -log q_phi(z | g(z)) without d/2 log 2 pi, in nats.
    """
    x = decode(z) if energy_weight or posterior_weight else None
    return _sum(
        energy_generated=(energy_weight / temperature, lambda: jnp.mean(energy(x))),
        nats_generated=(posterior_weight, lambda: _nats(encode, x, z)),
    )


def energy_penalty_loss(
    energy: densities.Energy, x: jax.Array, x_revised: jax.Array, *, temperature: float, weight: float
) -> Loss:
    """Penalize large energies (Du & Mordatch 2019): weight times (mean energy(x)^2 + mean energy(x~)^2) / T.

    Eq. 7 determines energies only up to a constant, and bounds neither their level nor their scale. The penalty is
    divided by T like Eq. 7, so that the weight is that of Du & Mordatch for any temperature.

    Args:
      energy: [B, ...] -> [B], the network to train.
      x: [B, ...] data.
      x_revised: [B, ...] final states x~ of the x-chains.
      temperature: T, in units of energy.
      weight: weight of the term squared_energy, in 1 / units of energy.

    Returns:
      The loss, and the term squared_energy: mean energy(x)^2 + mean energy(x~)^2, before division by T.
    """
    loss, terms = _sum(squared_energy=(weight, lambda: sum(jnp.mean(energy(states) ** 2) for states in (x, x_revised))))
    return loss / temperature, terms


def gradient_penalty_loss(
    energy: densities.Energy, x: jax.Array, x_revised: jax.Array, *, temperature: float, weight: float
) -> Loss:
    """Penalize steep energies: weight times (mean |grad energy(x)|^2 + mean |grad energy(x~)|^2) / T.

    The score of the EBM is -grad energy(x) / T. Small gradients keep the steps of the x-chain small. The penalty is
    divided by T like Eq. 7. It is that of Mescheder et al. (2018) for a discriminator, R1 + R2, with gamma = 2 weight.

    Args:
      energy: [B, ...] -> [B], the network to train.
      x: [B, ...] data.
      x_revised: [B, ...] final states x~ of the x-chains.
      temperature: T, in units of energy.
      weight: weight of the term squared_slope, in squared units of x / units of energy.

    Returns:
      The loss, and the term squared_slope: mean |grad energy(x)|^2 + mean |grad energy(x~)|^2, before division by T.
    """
    slope = jax.grad(lambda states: energy(states).sum())
    squared = lambda states: jnp.mean(densities.squared_norm(slope(states)))
    loss, terms = _sum(squared_slope=(weight, lambda: squared(x) + squared(x_revised)))
    return loss / temperature, terms


def _nats(encode: densities.Encode, x: jax.Array, z: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Return -mean log q_phi(z | x) without d/2 log 2 pi."""
    log_q, constant = densities.log_posterior(z, *encode(x)), 0.5 * z.shape[-1] * densities.LOG_2PI
    if mask is not None:
        return -_masked_mean(log_q + constant, mask)
    return -jnp.mean(log_q) - constant


def _masked_mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the sum of the values [B] whose mask [B] is True, divided by B. None: all values count."""
    return jnp.mean(values if mask is None else jnp.where(mask, values, 0))


def _sum(**terms: tuple[float, Callable[[], jax.Array]]) -> Loss:
    """Return the weighted sum of all terms whose weight is not 0, and the unweighted values of these terms."""
    values = {name: term() for name, (weight, term) in terms.items() if weight}
    return sum((terms[name][0] * value for name, value in values.items()), start=0.0), values
