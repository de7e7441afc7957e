"""Sampling for an evaluation, in batches on all devices, and the figure that shows the samples."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax import random_streams
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data.batches import to_uint8
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import figures
from dualmcmc_jax.runtime import parallel

TITLES = {"generator": "generator", "revised": "after the x-revision"}
"""Panel titles of the two kinds of samples, by the names that `stream` gives them."""


def stream(model: Model, *, num_samples: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Draw samples before and after the x-revision, in batches.

    Sample i depends on the seed and on i. If the generator uses batch statistics, or if the initial states are
    resampled, the sample also depends on the other samples of its group of `model.group_size` samples. It does not
    depend on num_samples or on the number of devices.

    Args:
      model: the model.
      num_samples: total number of samples of each kind.
      seed: seed of the samples.

    Yields:
      A batch of samples under "generator", g(z), and samples after the x-revision under "revised": uint8
      images [B, H, W, C] or float vectors [B, d].
    """
    run = parallel.stream(_group, model.group_size, desc="sampling")
    for part in run((model, random_streams.key(seed, Stream.SAMPLES)), num_samples):
        yield {name: finish(x) for name, x in part.items()}


def finish(x: np.ndarray) -> np.ndarray:
    """Convert images [..., H, W, C] with a batch dimension from [-1, 1] to uint8; return vectors [N, d] unchanged."""
    return to_uint8(x) if x.ndim > 3 else x


def figure(samples: dict[str, np.ndarray]) -> Figure:
    """Draw samples before and after the x-revision side by side.

    Args:
      samples: uint8 images [N, H, W, C] or vectors [N, d], by "generator" and "revised". Images are shown as a grid,
        vectors as a scatter plot of their first two dimensions, and vectors of one dimension as a histogram.
    """
    figure, axes = figures.plt.subplots(1, 2, figsize=(10, 5.3), layout="constrained")
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        x = samples[name]
        if x.ndim == 4:
            figures.show(axis, figures.grid(x), title)
            continue
        axis.set_title(title)
        limit = 1.1 * np.percentile(np.abs(np.concatenate([*samples.values()])), 99.5)
        if x.shape[1] == 1:
            axis.hist(x[:, 0], np.linspace(-limit, limit, 60), density=True)
            axis.set(xlabel="x1", ylabel="probability density")
        else:
            axis.plot(x[:, 0], x[:, 1], ".", markersize=2, alpha=0.5)
            axis.set_aspect("equal")
            axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="x1", ylabel="x2")
    return figure


def _group(constants, index):
    """Draw the group of samples with the global indices index [B]."""
    model, key = constants
    bound, keys = model.bound(), chain_keys(key, index)
    samples = bound.synthesize(keys)
    # With resampling, samples.generated are the chosen proposals, which are not distributed like g(z).
    generated = bound.synthesize(keys, resampling=None, num_steps=0).generated if samples.starts else samples.generated
    return {"generator": generated, "revised": samples.revised}
