"""Which examples are unusual? Scores of given sets, compared with those of held-out data."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax import random_streams
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.metrics import detection
from dualmcmc_jax.model import Model, Scores
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import figures
from dualmcmc_jax.report.sections import Block, Metric, Table
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training import objectives

LABELS = {
    "energy": Metric("energy", "lower", needs=("energy",)),
    "log_likelihood": Metric("log p(x)", "higher", "nats", needs=("generator", "encoder")),
    "reconstruction_error": Metric("reconstruction error", "lower", "MSE", needs=("generator",)),
    "latent_norm": Metric("norm of the latent", "lower", needs=("generator",)),
}
"""The scores, and whether lower or higher values are more like the data."""
RATES = {"auroc": Metric("AUROC", "higher"), "fpr95": Metric("FPR95", "lower"), "aupr": Metric("AUPR", "higher")}
HEADER = "set,name,"
"""Beginning of the table of scores, by which files of an earlier run are known."""


class Set(NamedTuple):
    """A named set of examples.

    Attributes:
      x: [N, ...], uint8 images or float vectors.
      names: [N], the names of the examples.
    """

    x: np.ndarray
    names: list[str]


def load(inputs: Sequence[str], data) -> dict[str, Set]:
    """Load sets of examples by name.

    Args:
      inputs: texts SOURCE or NAME=SOURCE, where SOURCE is a folder, a zip file, a .npz file or a data source. Without a
        name, the set has the name of the folder or file, or the whole source as its name.
      data: the config's `data` section.

    Raises:
      ValueError: a source cannot be read, or two sets have the same name.
    """
    sets = {}
    for text in inputs:
        name, equals, source = text.partition("=")
        path = Path(text)
        if not equals or not re.fullmatch(r"[\w. -]+", name) or path.exists():
            name, source = path.stem if path.is_file() else path.resolve().name if path.is_dir() else text, text
        if not source.strip():
            raise ValueError(f"input: found {text!r}, expected NAME=SOURCE or a folder, zip file or data source")
        if name in sets:
            raise ValueError(f"input: found two sets named {name!r}, expected different names, as in {name}-2={source}")
        sets[name] = Set(*sources.load_all(source, data, argument="input"))
    return sets


def used(config) -> dict[str, Metric]:
    """Return the scores whose networks are trained, by name.

    Args:
      config: the full config.
    """
    trained = objectives.trained(config)
    return {name: label for name, label in LABELS.items() if trained.issuperset(label.needs)}


def scores(model: Model, x: np.ndarray, *, seed: int) -> Scores:
    """Compute the scores [N] of examples, on all devices.

    Args:
      model: the model.
      x: [N, ...], uint8 images or float vectors.
      seed: seed of the chains and of the importance samples.
    """
    run = parallel.stream(_group, model.group_size, desc="scores")
    return parallel.collect(run((model, random_streams.key(seed, Stream.DETECTION)), len(x), x))


def table(sets: Mapping[str, Set], of_sets: Mapping[str, Scores], held_out: Scores, names: Sequence[str]) -> str:
    """Return the scores of all examples and their percentiles among held-out data as CSV, with one row per example.

    Args:
      sets: the sets by name.
      of_sets: the scores of each set.
      held_out: the scores of held-out data.
      names: the names of the scores to write.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["set", "name", *(column for name in names for column in (name, f"{name}_percentile"))])
    for name, examples in sets.items():
        percentiles = of_sets[name].percentiles(held_out)
        pairs = [getattr(part, score) for score in names for part in (of_sets[name], percentiles)]
        for example, *row in zip(examples.names, *pairs, strict=True):
            writer.writerow([name, example, *(f"{value:.6g}" for value in row)])
    return file.getvalue()


def separation(of_sets: Mapping[str, Scores], held_out: Scores, names: Sequence[str], *, seed: int) -> dict:
    """Measure how well each score separates each set from held-out data.

    Args:
      of_sets: the scores of each set.
      held_out: the scores of held-out data.
      names: the names of the scores to use.
      seed: seed of the bootstrap.

    Returns:
      {set: {score: {rate: [value, low, high]}}} with the rates of `metrics.detection` and the ends of 95% intervals.
    """
    results = {}
    for set_name, of_set in of_sets.items():
        results[set_name] = {}
        for name in names:
            sign = -1 if LABELS[name].better == "higher" else 1  # such that high values mean other examples
            pair = [sign * np.asarray(getattr(part, name), np.float64) for part in (held_out, of_set)]
            rates, intervals = detection.rates(*pair), detection.intervals(*pair, seed=seed)
            each = zip(RATES, rates, intervals, strict=True)
            results[set_name][name] = {rate: [value, *map(float, ends)] for rate, value, ends in each}
    return results


def blocks(results: Mapping, counts: Mapping[str, int], num_held_out: int) -> list[Block]:
    """Lay out what `separation` returned as one table per set, whose rows are the scores.

    Args:
      results: what `separation` returned.
      counts: the number of examples of each set.
      num_held_out: the number of held-out examples.
    """
    laid_out = []
    for set_name, by_score in results.items():
        rows = {
            LABELS[name].heading: ["{:.3f} ({:.3f} to {:.3f})".format(*rates[rate]) for rate in RATES]
            for name, rates in by_score.items()
        }
        share = counts[set_name] / (counts[set_name] + num_held_out)
        columns = [RATES["auroc"].heading, RATES["fpr95"].heading, f"{RATES['aupr'].heading} (chance: {share:.3f})"]
        laid_out.append(Block(f"{set_name} ({counts[set_name]:,})", "", Table(columns, rows), []))
    return laid_out


def figure(of_sets: Mapping[str, Scores], held_out: Scores, names: Sequence[str]) -> Figure:
    """Draw histograms of each score, for held-out data and for each set.

    Args:
      of_sets: the scores of each set.
      held_out: the scores of held-out data.
      names: the names of the scores to draw.
    """
    columns, rows = min(2, len(names)), -(-len(names) // 2)
    size = (4.6 * columns + 1.6, 3.2 * rows)
    drawn, axes = figures.plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    sets = {"held-out data": held_out, **of_sets}
    colors = figures.plt.get_cmap("tab10" if len(sets) <= 10 else "tab20").colors
    for axis, name in zip(axes.flat, names, strict=False):
        axis.set_prop_cycle(color=colors)
        text = f"{LABELS[name].label} ({LABELS[name].better}: more like the data)"
        figures.histograms(axis, {key: np.asarray(getattr(part, name)) for key, part in sets.items()}, text)
        if axis.get_legend():
            axis.get_legend().remove()
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return drawn


def _group(constants, index, x):
    """Return the scores [B] of one group of examples x [B, ...]."""
    model, key = constants
    return model.bound().detect(chain_keys(key, index), to_float(x, model.dtype))
