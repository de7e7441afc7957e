"""How likely are held-out examples under the EBM?

The likelihood needs the log partition function log Z, which annealed importance sampling bounds from both sides.
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
NUM_HELD_OUT = 1000
SECTIONS = (
    Section(
        title="Likelihood of held-out data",
        note=(
            "In nats an example, on the box [-1, 1]^D of images or the square of a known density, by annealed "
            "importance sampling there and back: on average the true log Z lies between the two. Without exact draws "
            "the way back begins where the way there ended, so that what no chain has found is in neither. Few chains "
            "that count, or sides far apart: take more evaluation.ais_temperatures. bits per dim: of 256 levels, "
            "dequantised."
        ),
        metrics={
            "likelihood/{group}/log_z_from_below": Metric("log z from below", unit="nats"),
            "likelihood/{group}/log_z_from_below_error": Metric("log z from below error", unit="nats"),
            "likelihood/{group}/chains_that_count_below": Metric("chains that count below", "higher"),
            "likelihood/{group}/log_z_from_above": Metric("log z from above", unit="nats"),
            "likelihood/{group}/log_z_from_above_error": Metric("log z from above error", unit="nats"),
            "likelihood/{group}/chains_that_count_above": Metric("chains that count above", "higher"),
            "likelihood/{group}/log_likelihood_at_least": Metric("log likelihood at least", "higher", "nats"),
            "likelihood/{group}/log_likelihood_at_most": Metric("log likelihood at most", "higher", "nats"),
            "likelihood/{group}/log_likelihood_error": Metric("log likelihood error", unit="nats"),
            "likelihood/{group}/bits_per_dim_at_most": Metric("bits per dim at most", "lower"),
            "likelihood/{group}/bits_per_dim_at_least": Metric("bits per dim at least", "lower"),
            "likelihood/{group}/bits_per_dim_error": Metric("bits per dim error"),
        },
        groups={"ebm": Group("EBM", needs=("energy",))},
    ),
)
CAPTIONS = {}


def check(config, dataset: sources.Dataset) -> None:
    """Raise ValueError if a likelihood is asked for, and the range of the data is not known."""
    if config.evaluation.ais_temperatures and dataset.value_range is None:
        expected = f"0, because the range of {config.data.source!r} is not known"
        raise ValueError(
            f"evaluation.ais_temperatures: found {config.evaluation.ais_temperatures}, expected {expected}"
        )


def applies(config, dataset) -> bool:
    """Return whether the config asks for a likelihood."""
    return config.evaluation.ais_temperatures > 0


def measure(model: Model, inputs: Inputs) -> Measured:
    """Bound log Z on the box and the log-likelihood of held-out examples from both sides, by "likelihood/ebm/NAME".

    Images are dequantised: each of their 256 levels has an interval of [-1, 1] of width 1/128, from which x is drawn.
    The mean of -log2 (p(x) 128^-D) / D is at least the bits per dimension of the levels themselves. The error is that
    of one side: of the mean over held-out examples and of log Z together.
    """
    config, dtype = model.config, model.dtype
    random, draw = np.random.RandomState(inputs.seed), None
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
    """The likelihood has no figure."""
    return {}


def _log_density(model):
    """Return log f: [B, ...] -> [B] of a model, inside a compiled function."""
    return model.bound().log_density
