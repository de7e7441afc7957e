"""How likely are held-out examples under the EBM?

The log-likelihood is -energy(x) / T - log Z, where T is the temperature. Annealed importance sampling bounds the log
partition function log Z from below and from above.
"""

import jax.numpy as jnp
import numpy as np

from dualmcmc_jax import random_streams
from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import subset
from dualmcmc_jax.evaluation import out_of_distribution
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import ais, quadrature
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report.sections import Group, Metric, Section

NUM_CHAINS = 200
"""Number of annealed chains in each direction."""
NUM_HELD_OUT = 1000
"""Largest number of held-out examples whose likelihood is measured."""
SECTIONS = (
    Section(
        title="Likelihood of held-out data",
        note=(
            "The log-likelihood of held-out examples under the EBM. For images, the EBM is restricted to the box "
            "[-1, 1]^D. Forward annealed importance sampling bounds log Z from below in expectation, and backward "
            "annealed importance sampling bounds log Z from above. For images the upper bound can be too low, because "
            "the backward chains do not visit modes that no forward chain reached. If the bounds are far apart or an "
            "effective sample size is small, raise evaluation.ais_temperatures."
        ),
        metrics={
            "likelihood/{group}/log_z_from_below": Metric("log Z, lower bound", unit="nats"),
            "likelihood/{group}/log_z_from_below_error": Metric("log Z, standard error of lower bound", unit="nats"),
            "likelihood/{group}/chains_that_count_below": Metric(
                "Effective sample size, forward chains", "higher", f"of {NUM_CHAINS}"
            ),
            "likelihood/{group}/log_z_from_above": Metric("log Z, upper bound", unit="nats"),
            "likelihood/{group}/log_z_from_above_error": Metric("log Z, standard error of upper bound", unit="nats"),
            "likelihood/{group}/chains_that_count_above": Metric(
                "Effective sample size, backward chains", "higher", f"of {NUM_CHAINS}"
            ),
            "likelihood/{group}/log_likelihood_at_least": Metric(
                "Log-likelihood per example, lower bound", "higher", "nats"
            ),
            "likelihood/{group}/log_likelihood_at_most": Metric(
                "Log-likelihood per example, upper bound", "higher", "nats"
            ),
            "likelihood/{group}/log_likelihood_error": Metric("Log-likelihood, standard error", unit="nats"),
            "likelihood/{group}/bits_per_dim_at_most": Metric("Bits per dimension, upper bound", "lower"),
            "likelihood/{group}/bits_per_dim_at_least": Metric("Bits per dimension, lower bound", "lower"),
            "likelihood/{group}/bits_per_dim_error": Metric("Bits per dimension, standard error"),
        },
        groups={"ebm": Group("EBM", needs=("energy",))},
    ),
)
CAPTIONS = {}


def check(config, dataset: sources.Dataset) -> None:
    """Raise ValueError if the config asks for a likelihood of data whose value range is unknown."""
    if config.evaluation.ais_temperatures and dataset.value_range is None:
        expected = f"0, because the value range of {config.data.source!r} is unknown"
        raise ValueError(
            f"evaluation.ais_temperatures: found {config.evaluation.ais_temperatures}, expected {expected}"
        )


def applies(config, dataset) -> bool:
    """Return whether the config asks for likelihoods: evaluation.ais_temperatures is above 0."""
    return config.evaluation.ais_temperatures > 0


def measure(model: Model, inputs: Inputs) -> Measured:
    """Bound log Z and the mean log-likelihood of held-out examples, on the box of the data's value range.

    Images are dequantized: each of the 256 pixel levels corresponds to an interval of width 1/128 in [-1, 1], and x is
    drawn uniformly from the intervals of its levels. Bits per dimension are the mean of -log2(p(x) 128^-D) / D, which
    is an upper bound on the bits per dimension of the discrete levels. The standard error of the log-likelihood
    combines the standard errors of the mean over held-out examples and of the upper bound on log Z.
    """
    config, dtype = model.config, model.dtype
    random, draw = random_streams.random_state(inputs.seed, Stream.LIKELIHOOD), None
    if truth := inputs.dataset.density:
        cells = quadrature.grid(truth.half_width)
        log_q = quadrature.normalized(model.log_density(cells.x.astype(dtype)), cells.area)
        draw = lambda _: jnp.asarray(quadrature.sample(random, cells, log_q, NUM_CHAINS), dtype)
    below, above = ais.bounds(
        random_streams.key(inputs.seed, Stream.PARTITION),
        _log_density,
        model,
        tuple(config.data.shape),
        half_width=inputs.dataset.value_range[1],
        num_temperatures=config.evaluation.ais_temperatures,
        num_chains=NUM_CHAINS,
        dtype=dtype,
        draw=draw,
    )

    x = inputs.held_out[subset(len(inputs.held_out), NUM_HELD_OUT)]
    is_image = x.dtype == np.uint8
    x = ((x + random.random_sample(x.shape)) / 128 - 1 if is_image else x).astype(dtype)
    values = -out_of_distribution.energies(model, x).astype(np.float64) / config.energy.temperature
    error = values.std() / len(values) ** 0.5
    metrics = {
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
        nats = np.prod(config.data.shape) * np.log(2)
        metrics["bits_per_dim_at_most"] = 7 - metrics["log_likelihood_at_least"] / nats
        metrics["bits_per_dim_at_least"] = 7 - metrics["log_likelihood_at_most"] / nats
        metrics["bits_per_dim_error"] = metrics["log_likelihood_error"] / nats
    return Measured({f"likelihood/ebm/{name}": float(value) for name, value in metrics.items()})


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict:
    """Return no figures, because all results are numbers."""
    return {}


def _log_density(model):
    """Return the function log f: [B, ...] -> [B] of a model."""
    return model.bound().log_density
