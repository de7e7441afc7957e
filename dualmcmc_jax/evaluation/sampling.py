"""Samples of a model in groups of one size, through all devices, and their figure."""

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
"""Titles of samples, by the name of their model."""
CAPTION = "Samples of the generator, and the same after the x-revision."


def stream(model: Model, *, num_samples: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Draw samples before and after the x-revision, a batch at a time.

    Sample i depends on the seed, on i and, with batch statistics, on its group of `model.group_size` samples. It
    depends neither on num_samples nor on the devices.

    Args:
      model: the model.
      num_samples: number of samples.
      seed: seed of the samples.

    Yields:
      Samples by the name of their model, "generator" and "revised": uint8 images [B, H, W, C], or float vectors [B, d].
    """
    run = parallel.stream(_group, model.group_size, desc="sampling")
    for part in run((model, random_streams.key(seed, Stream.SAMPLES)), num_samples):
        yield {name: finish(x) for name, x in part.items()}


def finish(x: np.ndarray) -> np.ndarray:
    """Convert images [..., H, W, C] of three or more dimensions from [-1, 1] to uint8; return vectors [N, d] as is."""
    return to_uint8(x) if x.ndim > 3 else x


def figure(samples: dict[str, np.ndarray]) -> Figure:
    """Draw samples before and after the x-revision side by side.

    Args:
      samples: images [N, H, W, C], drawn as grids, or vectors [N, d], drawn by their first two dimensions.
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
            axis.set(xlabel="x1", ylabel="density")
        else:
            axis.plot(x[:, 0], x[:, 1], ".", markersize=2, alpha=0.5)
            axis.set_aspect("equal")
            axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="x1", ylabel="x2")
    return figure


def _group(constants, index):
    """Draw one group of samples; index [B]: the global indices of the samples."""
    model, key = constants
    samples = model.bound().synthesize(chain_keys(key, index))
    return {"generator": samples.generated, "revised": samples.revised}
