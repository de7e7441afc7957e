"""The history of a run's metrics, and its training curves."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax.report.figures import plt

History = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""(steps, values) of every metric, by name."""


def read(workdir: Path) -> History:
    """Read the history of every metric in a workdir's metrics.jsonl; no metrics if there is no such file."""
    path = workdir / "metrics.jsonl"
    pairs = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line is being written
            continue
        for name, value in row.items():
            pairs.setdefault(name, []).append((row["step"], value))
    return {name: tuple(np.array(values).T) for name, values in pairs.items() if name != "step"}


def training(history: History) -> Figure | None:
    """Draw every metric of training against the step, each in its own panel; return None if there is no metric.

    Metrics whose names have parts, "PART/NAME", are those of evaluations and are left out.
    """
    names = [name for name in history if "/" not in name]
    if not names:
        return None
    columns = 3
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 1.9 * rows), layout="constrained", squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        axis.plot(*history[name], linewidth=0.8)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    figure.supxlabel("training step", fontsize=9)
    return figure
