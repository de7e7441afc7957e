"""Does the energy tell the data from other examples?"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import subset, to_float
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics.auroc import auroc
from dualmcmc_jax.model import Model
from dualmcmc_jax.report import figures
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training import objectives

SECTIONS = (
    Section(
        title="Energy",
        note=(
            "Lower is more likely; samples are measured as images, that is clipped and rounded. AUROC: the "
            "probability that a held-out example has a lower energy than one of the set."
        ),
        metrics={
            "energy/{group}/mean": Metric("mean", needs=("energy",)),
            "energy/{group}/std": Metric("std", needs=("energy",)),
            "auroc/{group}": Metric("AUROC", "higher", needs=("energy",)),
        },
        groups={"generator": Group("generator", needs=("generator",))},
        other_groups="{}",
        groups_are="rows",
    ),
)
CAPTIONS = {
    "energies": "Energies of data, samples, and sets that are no data; the outermost 0.5% of each side are cut."
}


class Energies(NamedTuple):
    """Energies [N] of data and samples, and of sets that are not the data, by name."""

    data: dict[str, np.ndarray]
    others: dict[str, np.ndarray]


def applies(config, dataset) -> bool:
    """Every model has an energy."""
    return True


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure the energies of data, kept samples and other sets, and how well they tell the sets from the data."""
    train, held_out = inputs.dataset.train, inputs.held_out
    data = {"train": train[subset(len(train), len(held_out))], "held_out": held_out, **inputs.kept}
    measured = Energies(*({name: energies(model, x) for name, x in sets.items()} for sets in (data, inputs.others)))
    metrics = {}
    for name, values in (measured.data | measured.others).items():
        metrics |= {f"energy/{name}/mean": float(values.mean()), f"energy/{name}/std": float(values.std())}
    for name, values in measured.others.items():
        metrics[f"auroc/{name}"] = auroc(measured.data["held_out"], values)
    return Measured(metrics, measured)


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw histograms of energies: of data and samples, and of held-out data beside the other sets."""
    if "energy" not in objectives.trained(model.config):
        return {}
    data, others = measured.arrays
    figure, axes = figures.plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    figures.histograms(axes[0], data, "energy (lower: more likely)")
    axes[0].set_title("data and samples")
    figures.histograms(axes[1], {"held_out": data["held_out"]} | others, "energy (lower: more likely)")
    axes[1].set_title("held-out data and out-of-distribution sets")
    return {"energies": figure}


def energies(model: Model, x: np.ndarray) -> np.ndarray:
    """Return the energies [N] of examples x [N, ...], uint8 images or vectors."""
    run = parallel.stream(_group, model.config.evaluation.batch_size, desc="energies")
    return parallel.collect(run(model, len(x), x))


def other_sets(config, held_out: np.ndarray) -> dict[str, np.ndarray]:
    """Make sets of examples that are not the data: [N, ...] by name, at most as many as held_out.

    The sets are uniform_noise, images of one constant colour each, the average_of_two held-out examples, and examples
    of every source in `evaluation.ood`, from its test set first.

    Raises:
      ValueError: a source cannot be read, or its examples have another shape.
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
        data = ConfigDict(config.data.to_dict())  # a model's config is frozen
        data.update(source=source, crop=())
        try:
            dataset = sources.load(data)
        except ValueError as error:
            shape = tuple(config.data.shape)
            other = f"found examples of another shape, expected {shape}, that of the data"
            what = other if str(error).startswith("data.shape") else error
            raise ValueError(f"evaluation.ood: {source!r}: {what}") from error
        few = dataset.test[subset(len(dataset.test), len(held_out))]
        more = dataset.train[subset(len(dataset.train), len(held_out) - len(few))]
        sets[source] = np.concatenate([few, more])
    return sets


def _group(model, index, x):
    """Return the energies [B] of one group of examples x [B, ...]."""
    return model.bound().energy(to_float(x, model.dtype))
