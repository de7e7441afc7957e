"""The energy's normalising constant, and hence the likelihood of held-out examples and their bits per dimension."""

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.core import densities
from dualmcmc_jax.data.batches import subset
from dualmcmc_jax.evaluation import ground_truth_density, out_of_distribution
from dualmcmc_jax.evaluation.drawing import at_test_time
from dualmcmc_jax.metrics import ais, quadrature
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.state import param_dtype

NUM_CHAINS = 200
NUM_HELD_OUT = 1000


def box(config) -> float | None:
    """Half the width of the box on which the energy is a density: 1 of images; None where the range is not known."""
    truth = ground_truth_density.of(config)
    return truth.half_width if truth else 1.0 if len(config.data.shape) == 3 else None


def measure(config, params: Params, held_out: np.ndarray, *, seed: int) -> dict[str, float]:
    """log Z on the box and the log-likelihood of held_out [N, ...], both from two sides, by "likelihood/ebm/NAME".

    Images are dequantised: to each of their 256 levels belongs an interval of [-1, 1] of width 1/128, from which x is
    drawn, so that the mean of -log2 (p(x) 128^-D) / D is at least the bits per dimension of the levels themselves. The
    error is that of one side: of the mean over held-out examples and of log Z together.
    """
    config = at_test_time(config)
    energy, temperature = models.build(config).energy.bind(params.energy), config.energy.temperature
    log_f = lambda x: densities.log_ebm(x, energy, temperature=temperature)
    shape, half_width, dtype = tuple(config.data.shape), box(config), param_dtype(config)
    random, draw = np.random.RandomState(seed), None
    if truth := ground_truth_density.of(config):
        cells = quadrature.grid(truth.half_width)
        log_q = quadrature.normalized(jax.jit(log_f)(cells.x.astype(dtype)), cells.area)
        draw = lambda _: jnp.asarray(quadrature.sample(random, cells, log_q, NUM_CHAINS), dtype)
    settings = {"num_temperatures": config.evaluation.ais_temperatures, "num_chains": NUM_CHAINS, "draw": draw}
    key = jax.random.fold_in(jax.random.key(seed), _STREAM)
    below, above = ais.bounds(key, log_f, shape, half_width=half_width, dtype=dtype, **settings)

    x = held_out[subset(len(held_out), NUM_HELD_OUT)]
    is_image = x.dtype == np.uint8
    x = ((x + random.random_sample(x.shape)) / 128 - 1 if is_image else x).astype(dtype)
    values = -out_of_distribution.meter(config)(params, x).astype(np.float64) / temperature
    error = values.std() / len(values) ** 0.5
    found = {
        "log_z_from_below": below.log_z,
        "log_z_from_below_error": below.error,
        "chains_that_count_below": below.effective_sample_size,
        "log_z_from_above": above.log_z,
        "log_z_from_above_error": above.error,
        "chains_that_count_above": above.effective_sample_size,
        "log_likelihood_at_least": values.mean() - above.log_z,
        "log_likelihood_at_most": values.mean() - below.log_z,
        "log_likelihood_error": np.hypot(error, above.error),
    }
    if is_image:
        nats = np.prod(shape) * np.log(2)
        found["bits_per_dim_at_most"] = 7 - found["log_likelihood_at_least"] / nats
        found["bits_per_dim_at_least"] = 7 - found["log_likelihood_at_most"] / nats
        found["bits_per_dim_error"] = found["log_likelihood_error"] / nats
    return {f"likelihood/ebm/{name}": float(value) for name, value in found.items()}


_STREAM = 2030
"""Keeps this randomness apart from that of training and of other measures of the same seed."""
