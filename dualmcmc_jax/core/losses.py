"""The three learning objectives (Eq. 7, 10 and 15), and those of other methods, as means over a batch.

In the three, data pairs (x, z~) come from Q~ and model pairs (x~, z) from P~. These samples are constants, so terms
without parameters are dropped, and the gradient is that of the KL divergences. In `elbo_loss` and
`generated_loss` the gradient goes through the samples.

Each objective is a weighted sum of named terms. A term of weight 0 is left out, so that nothing is computed for it. All
functions return the sum and the terms by name.
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
    """KL(Q~, Pi) - KL(P~, Pi), Eq. 7: mean f(x~) - mean f(x), with f = -energy / T.

    Terms: energy_data and energy_model, the mean energies of x and of x~ (before division by T).
    """
    gap, terms = _sum(
        energy_data=(data_weight, lambda: jnp.mean(energy(x))),
        energy_model=(-model_weight, lambda: jnp.mean(energy(x_revised))),
    )
    return gap / temperature, terms


def generator_loss(
    decode: densities.Decode, data: Pair, model: Pair, *, data_weight: float, model_weight: float
) -> Loss:
    """KL(Q~, P) + KL(P~, P), Eq. 10, times 2 sigma^2: mean |x - g(z~)|^2 + mean |x~ - g(z)|^2.

    That scale is the authors': Adam hardly notices it, but the L2 in the gradient does. The generator is called
    on z~ and on z separately, because with batch statistics one joint call is another function.

    Terms: error_data and error_model, the means of |x - g(z~)|^2 and of |x~ - g(z)|^2.
    """
    (x, z_revised), (x_revised, z) = data, model
    return _sum(
        error_data=(data_weight, lambda: jnp.mean(densities.squared_norm(x - decode(z_revised)))),
        error_model=(model_weight, lambda: jnp.mean(densities.squared_norm(x_revised - decode(z)))),
    )


def encoder_loss(encode: densities.Encode, data: Pair, model: Pair, *, data_weight: float, model_weight: float) -> Loss:
    """KL(Q~, Q) + KL(P~, Pi), Eq. 15: -mean log q_phi(z~ | x) - mean log q_phi(z | x~), without d/2 log 2 pi.

    Terms: nats_data and nats_model, the two of them.
    """
    return _sum(
        nats_data=(data_weight, lambda: _nats(encode, *data)),
        nats_model=(model_weight, lambda: _nats(encode, *model)),
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
    """KL(Q, P) of a variational autoencoder, times 2 sigma^2: minus the evidence lower bound (Kingma & Welling 2014).

    mean |x - g(z)|^2 + 2 sigma^2 mean KL(q_phi(z | x), N(0, I)) with z = mean + std * noise, through which the gradient
    reaches the encoder; without constants.

    Term: elbo, that sum.
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
    """KL(P, Pi), whose samples g(z) the gradient goes through: mean -f(g(z)) - mean log q_phi(z | g(z)).

    The first draws the generator to where the energy is low, the second keeps its samples apart: it bounds their
    entropy from below (Han et al. 2019). The energy is a constant here.

    Terms: energy_generated, the mean energy of g(z) (before division by T), and nats_generated.
    """
    x = decode(z) if energy_weight or posterior_weight else None
    return _sum(
        energy_generated=(energy_weight / temperature, lambda: jnp.mean(energy(x))),
        nats_generated=(posterior_weight, lambda: _nats(encode, x, z)),
    )


def _nats(encode: densities.Encode, x: jax.Array, z: jax.Array) -> jax.Array:
    """-mean log q_phi(z | x), without d/2 log 2 pi."""
    return -jnp.mean(densities.log_posterior(z, *encode(x))) - 0.5 * z.shape[-1] * densities.LOG_2PI


def _sum(**terms: tuple[float, Callable[[], jax.Array]]) -> Loss:
    values = {name: term() for name, (weight, term) in terms.items() if weight}
    return sum((terms[name][0] * value for name, value in values.items()), start=0.0), values
