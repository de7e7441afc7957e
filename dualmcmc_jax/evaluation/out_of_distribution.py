"""Does the energy separate the data from out-of-distribution examples?"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import subset, to_float
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import detection
from dualmcmc_jax.metrics.auroc import auroc
from dualmcmc_jax.model import Model
from dualmcmc_jax.report import figures
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training import objectives

SECTIONS = (
    Section(
        title="Energies and out-of-distribution detection",
        note=(
            "Energies are outputs of the network, before division by the temperature; lower energy means higher "
            "density. AUROC is the probability that a held-out example has a lower energy than an example of this set: "
            "0.5 is chance, 1 is perfect separation. FPR95 is the share of this set that a threshold accepts which "
            "accepts 95% of held-out data: 0.95 is chance, 0 is perfect. AUPR is the average precision of the search "
            "for examples of this set by high energies: its share of all examples is chance. Before their "
            "energies are computed, image samples are clipped to [-1, 1] and rounded to 8 bits."
        ),
        metrics={
            "energy/{group}/mean": Metric("Mean energy", needs=("energy",)),
            "energy/{group}/std": Metric("Standard deviation", needs=("energy",)),
            "auroc/{group}": Metric("AUROC", "higher", needs=("energy",)),
            "fpr95/{group}": Metric("FPR95", "lower", needs=("energy",)),
            "aupr/{group}": Metric("AUPR", "higher", needs=("energy",)),
        },
        groups={
            "train": Group("training data"),
            "held_out": Group("held-out data"),
            "generator": Group("generator samples", needs=("generator",)),
            "revised": Group("samples after x-revision"),
            "average_of_two": Group("averages of two held-out examples"),
            "uniform_noise": Group("uniform noise"),
            "constant": Group("images of one color"),
        },
        other_groups="{}",
        groups_are="rows",
    ),
)
CAPTIONS = {
    "energies": (
        "Energies of data and samples (left), and of held-out data and out-of-distribution sets (right). The axis "
        "covers at least the middle 99% of each set."
    )
}


class Energies(NamedTuple):
    """Energies [N] by the name of the set.

    Attributes:
      data: energies of training data, held-out data and samples.
      others: energies of out-of-distribution sets.
    """

    data: dict[str, np.ndarray]
    others: dict[str, np.ndarray]


def applies(config, dataset) -> bool:
    """Return True, because every model has an energy."""
    return True


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure the energies of data, kept samples and out-of-distribution sets.

    AUROC, FPR95 and AUPR are measured for each out-of-distribution set.
    """
    train, held_out = inputs.dataset.train, inputs.held_out
    data = {"train": train[subset(len(train), len(held_out))], "held_out": held_out, **inputs.kept}
    measured = Energies(*({name: energies(model, x) for name, x in sets.items()} for sets in (data, inputs.others)))
    metrics = {}
    for name, values in (measured.data | measured.others).items():
        metrics |= {f"energy/{name}/mean": float(values.mean()), f"energy/{name}/std": float(values.std())}
    for name, values in measured.others.items():
        metrics[f"auroc/{name}"] = auroc(measured.data["held_out"], values)
        rates = detection.rates(measured.data["held_out"], values)
        metrics |= {f"fpr95/{name}": rates.fpr95, f"aupr/{name}": rates.aupr}
    return Measured(metrics, measured)


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw histograms of the energies of data and samples, and of held-out data and out-of-distribution sets."""
    if "energy" not in objectives.trained(model.config):
        return {}
    data, others = measured.arrays
    labels = SECTIONS[0].groups
    by_label = lambda sets: {labels[name].label if name in labels else name: x for name, x in sets.items()}
    figure, axes = figures.plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    figures.histograms(axes[0], by_label(data), "energy (lower: higher density)")
    axes[0].set_title("data and samples")
    figures.histograms(axes[1], by_label({"held_out": data["held_out"]} | others), "energy (lower: higher density)")
    axes[1].set_title("held-out data and out-of-distribution sets")
    return {"energies": figure}


def energies(model: Model, x: np.ndarray) -> np.ndarray:
    """Return the energies [N] of uint8 images or float vectors x [N, ...], before division by the temperature."""
    run = parallel.stream(_group, model.config.evaluation.batch_size, desc="energies")
    return parallel.collect(run(model, len(x), x))


def other_sets(config, held_out: np.ndarray) -> dict[str, np.ndarray]:
    """Make out-of-distribution sets. Their examples have the type and shape of the data.

    The sets are:

    - "average_of_two": averages of pairs of held-out examples;
    - "uniform_noise": independent uniform values for each pixel, or for each coordinate over its range in held_out;
    - "constant", only for images: images of one random color;
    - each source of `evaluation.ood`, under its own name: up to N of its test examples, filled up with its training
      examples.

    Args:
      config: the whole config.
      held_out: [N, ...], held-out examples.

    Returns:
      Examples by the name of the set: [N, ...], or fewer if a source has fewer.

    Raises:
      ValueError: a source cannot be read, or its examples have a different shape.
    """
    random, shape, is_image = np.random.RandomState(0), held_out.shape, len(config.data.shape) == 3
    exact = held_out.astype(np.uint16 if is_image else held_out.dtype)
    sets = {"average_of_two": ((exact + np.roll(exact, 1, axis=0)) / 2).astype(held_out.dtype)}
    if is_image:
        sets["uniform_noise"] = random.randint(0, 256, shape, np.uint8)
        sets["constant"] = np.broadcast_to(random.randint(0, 256, (shape[0], 1, 1, shape[3]), np.uint8), shape)
    else:
        low, high = held_out.min(0), held_out.max(0)
        sets["uniform_noise"] = random.uniform(low, high, shape).astype(held_out.dtype)
    for source in config.evaluation.ood:
        data = ConfigDict(config.data.to_dict())  # a copy, because a model's config is frozen
        data.update(source=source, crop=())
        try:
            dataset = sources.load(data)
        except ValueError as error:
            shape = tuple(config.data.shape)
            wrong_shape = f"found examples of another shape, expected {shape}, the shape of the training data"
            problem = wrong_shape if str(error).startswith("data.shape") else error
            raise ValueError(f"evaluation.ood: {source!r}: {problem}") from error
        test = dataset.test[subset(len(dataset.test), len(held_out))]
        train = dataset.train[subset(len(dataset.train), len(held_out) - len(test))]
        sets[source] = np.concatenate([test, train])
    return sets


def _group(model, index, x):
    """Return the energies [B] of one batch of examples x [B, ...]."""
    return model.bound().energy(to_float(x, model.dtype))
