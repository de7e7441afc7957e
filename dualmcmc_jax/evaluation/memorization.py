"""Are training examples memorized?

The distances of samples to their nearest training examples are compared with the distances of held-out data.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax.data.batches import subset, to_float
from dualmcmc_jax.evaluation import samples
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import neighbours
from dualmcmc_jax.model import Model
from dualmcmc_jax.report import figures
from dualmcmc_jax.report.sections import Group, Metric, Section

NUM_NEIGHBOURS = 5
SECTIONS = (
    Section(
        title="Memorization",
        note=(
            "Distance to the nearest training example: the root mean square difference per pixel, with pixels in "
            "[-1, 1] (for vectors: per coordinate). Distances of samples far below those of held-out data indicate "
            "that the model has memorized training examples."
        ),
        metrics={
            "{group}/nearest_train_median": Metric("Distance to nearest training example, median"),
            "{group}/nearest_train_1_percent": Metric("Distance to nearest training example, 1st percentile"),
        },
        groups=samples.GROUPS | {"held_out": Group("held-out data")},
    ),
)
CAPTIONS = {
    "neighbours": (
        "Left: samples after the x-revision (first column) and their nearest training examples. Right: distances to "
        "the nearest training example; memorized samples would lie to the left of held-out data."
    )
}


class Nearest(NamedTuple):
    """Nearest training examples.

    Attributes:
      distances: [N] distances to the nearest training example, by the name of the set of examples.
      indices: [N, NUM_NEIGHBOURS], the training examples nearest to each sample after the x-revision, nearest first.
    """

    distances: dict[str, np.ndarray]
    indices: np.ndarray


def applies(config, dataset) -> bool:
    """Return True, because every data set has training examples."""
    return True


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure the distances of kept samples and of held-out data to their nearest training examples."""
    train, held_out = inputs.dataset.train, inputs.held_out
    vectors = lambda x: to_float(x, np.float32).reshape(len(x), -1)
    examples = {**inputs.kept, "held_out": held_out[subset(len(held_out), samples.NUM_KEPT)]}
    nearest = {
        name: neighbours.nearest(x, train, num=NUM_NEIGHBOURS, to_vector=vectors) for name, x in examples.items()
    }
    distances = {name: distance[:, 0] for name, (distance, _) in nearest.items()}
    metrics = {}
    for name, distance in distances.items():
        metrics[f"{name}/nearest_train_median"] = float(np.median(distance))
        metrics[f"{name}/nearest_train_1_percent"] = float(np.percentile(distance, 1))
    return Measured(metrics, Nearest(distances, nearest["revised"][1]))


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw some sampled images with their nearest training examples, and histograms of the distances."""
    if not model.makes_images:
        return {}
    shown = inputs.kept["revised"][:6]
    nearest = inputs.dataset.train[measured.arrays.indices[:6]]
    figure, axes = figures.plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(2, 3))
    pixels = figures.tile(np.concatenate([shown[:, None], nearest], axis=1))
    figures.show(axes[0], pixels, "sample, then its nearest training images")
    labels = SECTIONS[0].groups
    distances = {labels[name].label: distance for name, distance in measured.arrays.distances.items()}
    figures.histograms(axes[1], distances, "distance to the nearest training image (RMS per pixel, pixels in [-1, 1])")
    return {"neighbours": figure}
