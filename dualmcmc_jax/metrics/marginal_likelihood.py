"""log p_theta(x) of the generator, which is an integral over its latents."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import chain_keys, normal
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.metrics.quadrature import grid
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.state import param_dtype

NUM_SAMPLES = 1000
"""Latents per example by default: log p of fewer is lower."""


def importance(
    keys: jax.Array,
    encode: densities.Encode,
    decode: densities.Decode,
    x: jax.Array,
    *,
    variance: float,
    num_samples: int,
) -> tuple[jax.Array, jax.Array]:
    """log p_theta(x) = log E_q[p_theta(x, z) / q_phi(z | x)] from draws of the inference model.

    Args:
      keys: [B] keys, one per example.
      encode: x -> (mean, log_var) of q_phi(z | x).
      decode: z -> g(z).
      x: [B, ...].
      variance: sigma^2 of p(x | z).
      num_samples: latents per example.

    Returns:
      log p_theta(x) [B] in nats, on average at most the truth, and the effective sample size
      (sum w)^2 / sum w^2 [B], from 1 to num_samples.
    """
    mean, log_var = encode(x)

    def step(sums, i):
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, i), mean.shape[1:], mean.dtype)
        log_q = densities.log_prior(noise) - 0.5 * jnp.sum(log_var, axis=-1)
        log_w = densities.log_joint(x, mean + jnp.exp(0.5 * log_var) * noise, decode, variance=variance) - log_q
        return (jnp.logaddexp(sums[0], log_w), jnp.logaddexp(sums[1], 2 * log_w)), None

    start = (jnp.full(len(x), -jnp.inf, x.dtype),) * 2
    (log_sum, log_squares), _ = jax.lax.scan(step, start, jnp.arange(num_samples))
    return log_sum - math.log(num_samples), jnp.exp(2 * log_sum - log_squares)


def quadrature(
    decode: densities.Decode, x: np.ndarray, *, variance: float, half_width: float = 6.0, num_points: int = 600
) -> np.ndarray:
    """log p_theta(x) [N] in nats of a generator with two latents, summed over a grid of z."""
    cells = grid(half_width, num_points)
    z = jnp.asarray(cells.x, jnp.result_type(x.dtype, jnp.float32)).reshape(num_points, num_points, 2)

    @jax.jit
    def log_p(x):
        def add(total, z):
            log_prior = densities.log_prior(z)
            mean = decode(z).reshape(num_points, -1)
            square = jnp.sum((x[:, None] - mean) ** 2, axis=-1)  # [B, num_points]
            normalizer = 0.5 * mean.shape[-1] * (densities.LOG_2PI + math.log(variance))
            terms = log_prior - square / (2 * variance) - normalizer
            return jnp.logaddexp(total, jax.nn.logsumexp(terms, axis=-1)), None

        return jax.lax.scan(add, jnp.full(len(x), -jnp.inf, z.dtype), z)[0] + math.log(cells.area)

    x = x.reshape(len(x), -1).astype(z.dtype)
    return np.concatenate([np.asarray(log_p(x[i : i + 500])) for i in range(0, len(x), 500)])


def meter(config, num_samples: int = NUM_SAMPLES) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """measure(params, x, *, seed): `importance` of examples x [N, ...], uint8 images or vectors."""
    nets = models.build(config)

    def group(constants, index, x):
        params, key = constants
        encode, decode = nets.encoder.bind(params.encoder), nets.generator.bind(params.generator)
        x = to_float(x, param_dtype(config))
        settings = {"variance": config.generator.variance, "num_samples": num_samples}
        return importance(chain_keys(key, index), encode, decode, x, **settings)

    run = parallel.stream(group, config.evaluation.batch_size, desc="likelihoods")

    def measure(params: Params, x: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return parallel.collect(run((params, jax.random.fold_in(jax.random.key(seed), _STREAM)), len(x), x))

    return measure


_STREAM = 2027
"""Keeps this randomness apart from that of training and of other measures of the same seed."""
