"""The history of the metrics of a run, and the training curves."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax.report.figures import plt
from dualmcmc_jax.runtime import metric_writer

History = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Arrays (steps [N], values [N]) of each metric, by the name of the metric."""


def read(workdir: Path) -> History:
    """Read the history of all metrics from the metrics.jsonl of a workdir. Without this file the history is empty."""
    pairs = {}
    for row in metric_writer.rows(workdir):
        for name, value in row.items():
            pairs.setdefault(name, []).append((row["step"], value))
    return {name: tuple(np.array(values).T) for name, values in pairs.items() if name != "step"}


_KINDS = ("loss", "mse", "mse_end", "mse_start", "data", "model", "gap", "gradient_norm")
"""Ends of the names of training metrics, in the order of their panels. Other metrics come last."""
_NETWORKS = ("energy", "generator", "encoder")


def _place(name: str) -> tuple:
    """Return the key by which the panels are sorted: the kind of the metric, then its network."""
    kind = next((i for i, end in enumerate(_KINDS) if name.endswith(f"_{end}")), len(_KINDS))
    network = name.partition("_")[0]
    return kind, _NETWORKS.index(network) if network in _NETWORKS else len(_NETWORKS), name


def training(history: History) -> Figure | None:
    """Draw each training metric against the training step, in one panel per metric: first losses, then errors.

    Names that contain "/" belong to metrics of light evaluations, which are left out. One more panel, energy_gap, shows
    energy_data - energy_model.

    Returns:
      The figure, or None if the history has no training metric.
    """
    return compare({"": history})


def compare(histories: Mapping[str, History]) -> Figure | None:
    """Draw the training metrics of several runs as `training` does, with one line per run in each panel.

    Args:
      histories: the history of each run, by the name of the run.

    Returns:
      The figure, or None if no history has a training metric.
    """
    histories = {run: _with_gap(history) for run, history in histories.items()}
    names = sorted({name for history in histories.values() for name in history if "/" not in name}, key=_place)
    if not names:
        return None
    columns = 3
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 1.9 * rows), layout="constrained", squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for run, history in histories.items():
            axis.plot(*history.get(name, ([], [])), linewidth=0.8, label=run)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    figure.supxlabel("training step", fontsize=9)
    if len(histories) > 1:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


def _with_gap(history: History) -> History:
    """Add energy_gap = energy_data - energy_model to a history that has both."""
    if {"energy_data", "energy_model"} <= history.keys():
        (steps, of_data), (other_steps, of_model) = history["energy_data"], history["energy_model"]
        if np.array_equal(steps, other_steps):
            return {**history, "energy_gap": (steps, of_data - of_model)}
    return history
