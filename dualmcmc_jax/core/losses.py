"""The three learning objectives (Eq. 7, 10 and 15), as means over a batch of fixed samples.

In each, data pairs (x, z~) come from Q~ and model pairs (x~, z) from P~. The samples are constants, so what the
KL divergences leave is written here; its gradient is theirs.
"""

import jax
import jax.numpy as jnp

from dualmcmc_jax.core import densities

Pair = tuple[jax.Array, jax.Array]


def energy_loss(
    energy: densities.Energy,
    x: jax.Array,
    x_revised: jax.Array,
    *,
    temperature: float,
    data_weight: float,
    model_weight: float,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """KL(Q~, Pi) - KL(P~, Pi), Eq. 7: mean f(x~) - mean f(x), with f = -energy / T.

    Returns:
      The loss, and the mean energies of x and of x~ (before division by T).
    """
    energy_data = jnp.mean(energy(x))
    energy_model = jnp.mean(energy(x_revised))
    loss = (data_weight * energy_data - model_weight * energy_model) / temperature
    return loss, (energy_data, energy_model)


def generator_loss(
    decode: densities.Decode, data: Pair, model: Pair, *, data_weight: float, model_weight: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """KL(Q~, P) + KL(P~, P), Eq. 10, times 2 sigma^2: mean |x - g(z~)|^2 + mean |x~ - g(z)|^2.

    That scale is the authors': Adam hardly notices it, but the L2 in the gradient does. The generator is called
    on z~ and on z separately, because with batch statistics one joint call is another function.

    Returns:
      The loss, and the means of |x - g(z~)|^2 and of |x~ - g(z)|^2.
    """
    (x, z_revised), (x_revised, z) = data, model
    error_data = jnp.mean(densities.squared_norm(x - decode(z_revised)))
    error_model = jnp.mean(densities.squared_norm(x_revised - decode(z)))
    return data_weight * error_data + model_weight * error_model, (error_data, error_model)


def encoder_loss(
    encode: densities.Encode, data: Pair, model: Pair, *, data_weight: float, model_weight: float
) -> jax.Array:
    """KL(Q~, Q) + KL(P~, Pi), Eq. 15: -mean log q_phi(z~ | x) - mean log q_phi(z | x~), without d/2 log 2 pi."""
    (x, z_revised), (x_revised, z) = data, model

    def nats(x, z):
        log_q = densities.log_posterior(z, *encode(x))
        return -jnp.mean(log_q) - 0.5 * z.shape[-1] * densities.LOG_2PI

    return data_weight * nats(x, z_revised) + model_weight * nats(x_revised, z)
