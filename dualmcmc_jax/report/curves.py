"""Curves of a run from its metrics.jsonl, and histograms of energies."""

import json
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from dualmcmc_jax.report.figures import histograms

METHODS = {
    "encoder_chain": "z-revision from the inference model",
    "noise_chain": "z-revision from noise",
    "encoder": "inference model alone",
}
MEASURES = {"mse": "mean squared error", "psnr": "PSNR, dB", "ssim": "SSIM"}


def read(workdir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(steps, values) of every metric in metrics.jsonl, by name; none if there is no such file."""
    path = workdir / "metrics.jsonl"
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # cut off while it is being written
            continue
        for name, value in row.items():
            found.setdefault(name, []).append((row["step"], value))
    return {name: tuple(np.array(pairs).T) for name, pairs in found.items() if name != "step"}


def training(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Every metric of training against its step, each in a panel of its own."""
    names = [name for name in curves if "/" not in name]
    columns = 3
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 1.9 * rows), layout="constrained", squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        axis.plot(*curves[name], linewidth=0.8)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    figure.supxlabel("training step", fontsize=9)
    return figure


def reconstruction(curves: dict[str, tuple[np.ndarray, np.ndarray]], found: dict[str, float]) -> Figure:
    """MSE, PSNR and SSIM of held-out examples against the training step, by where the latents start (Figure 3).

    The curves are those of the light evaluations; a star is what was found now, of all held-out examples.
    """
    measures = [measure for measure in MEASURES if f"reconstruction/encoder/{measure}" in found]
    size = (3.7 * len(measures), 3.4)
    figure, axes = plt.subplots(1, len(measures), figsize=size, layout="constrained", squeeze=False)
    for axis, measure in zip(axes[0], measures, strict=True):
        for method, label in METHODS.items():
            name = f"reconstruction/{method}/{measure}"
            (line,) = axis.plot(*curves.get(f"light/{name}", ([], [])), ".-", label=label)
            axis.plot(found["step"], found[name], "*", markersize=9, color=line.get_color())
        axis.set(xlabel="training step", ylabel=MEASURES[measure])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    return figure


def energies(data: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> Figure:
    """Histograms of energies: of data and samples, and of held-out data beside what is no data."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    histograms(axes[0], data, "energy (lower: more likely)")
    axes[0].set_title("data and samples")
    histograms(axes[1], {"held_out": data["held_out"]} | other, "energy (lower: more likely)")
    axes[1].set_title("held-out data and out-of-distribution sets")
    return figure
