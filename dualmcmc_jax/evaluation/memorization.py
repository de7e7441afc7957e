"""Are training examples memorised?"""

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
            "nearest train: root mean square difference per pixel, in [-1, 1], to the nearest training example. "
            "Samples that are much nearer than held-out data are memorised."
        ),
        metrics={
            "{group}/nearest_train_median": Metric("nearest train median"),
            "{group}/nearest_train_1_percent": Metric("nearest train 1 percent"),
        },
        groups=samples.GROUPS | {"held_out": Group("held-out data")},
    ),
)
CAPTIONS = {"neighbours": "Nearest training examples: is anything memorised?"}


class Nearest(NamedTuple):
    """Distances [N] to the nearest training example, by name of the examples, and indices [N, 5] of the neighbours.

    The indices are those of the revised samples.
    """

    distances: dict[str, np.ndarray]
    indices: np.ndarray


def applies(config, dataset) -> bool:
    """Every data set has training examples."""
    return True


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure the distances of the kept samples and of held-out data to the training data."""
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
    """Draw some revised images with their neighbours, and histograms of the distances."""
    if not model.makes_images:
        return {}
    shown = inputs.kept["revised"][:6]
    nearest = inputs.dataset.train[measured.arrays.indices[:6]]
    figure, axes = figures.plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(2, 3))
    pixels = figures.tile(np.concatenate([shown[:, None], nearest], axis=1))
    figures.show(axes[0], pixels, "revised sample, then nearest in training")
    label = "distance to the nearest training example (RMS per pixel, pixels in [-1, 1])"
    figures.histograms(axes[1], measured.arrays.distances, label)
    axes[1].set_title("memorised samples would lie left of held-out data")
    return {"neighbours": figure}
