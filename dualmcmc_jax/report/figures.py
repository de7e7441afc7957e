"""Building blocks that all figures share, and saving of figures as PNG files."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualmcmc_jax.runtime.workdirs import replace

matplotlib.rcdefaults()  # settings of the user's matplotlibrc, such as text.usetex, could make figures fail


def histograms(axis: Axes, values: dict[str, np.ndarray], label: str) -> None:
    """Draw normalized histograms of several sets of values, with the same bins.

    The bins cover at least the middle 99% of each set. Values that are not finite are left out.

    Args:
      axis: axes to draw on.
      values: values [N] of each set, by the label of the set in the legend.
      label: label of the horizontal axis, with the name of the values and their unit.
    """
    finite = {name: v[np.isfinite(v)] for name, v in values.items() if np.isfinite(v).any()}
    axis.set(xlabel=label, ylabel="probability density")
    if not finite:
        return
    low, high = (f(np.percentile(v, p) for v in finite.values()) for f, p in ((min, 0.5), (max, 99.5)))
    bins = np.linspace(low, max(high, low + 1e-9), 40)
    for name, v in finite.items():
        axis.hist(v, bins, density=True, histtype="step", label=name)
    axis.legend(fontsize=8)


def images_and_curve(pixels: np.ndarray, title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    """Return a figure with uint8 pixels [height, width(, C)] above an empty panel, and the axes of both panels."""
    height = 8 * pixels.shape[0] / pixels.shape[1]
    figure, axes = plt.subplots(2, 1, figsize=(8, height + 2.6), layout="constrained", height_ratios=(height, 2))
    show(axes[0], pixels, title)
    return figure, axes


def label_columns(axis: Axes, labels: Sequence, title: str) -> None:
    """Write a label under each column of an image of equally wide columns, and a title below the labels."""
    width = axis.images[0].get_array().shape[1] / len(labels)
    axis.set_xticks(width * (np.arange(len(labels)) + 0.5), labels, fontsize=8)
    axis.tick_params(length=0)
    axis.set_xlabel(title, fontsize=8)


def show(axis: Axes, pixels: np.ndarray, title: str = "") -> None:
    """Show a uint8 image [height, width] or [height, width, C] without ticks or frame."""
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def grid(x: np.ndarray) -> np.ndarray:
    """Tile uint8 images [N, H, W, C] into the largest square grid that they fill completely: [height, width(, C)]."""
    side = int(len(x) ** 0.5)
    return tile(x[: side * side].reshape(side, side, *x.shape[1:]))


def tile(x: np.ndarray, pad: int = 1) -> np.ndarray:
    """Tile uint8 images [rows, columns, H, W, C] with white gaps: [height, width, C], or [height, width] if C is 1."""
    tiles = np.pad(x, ((0, 0), (0, 0), (pad, 0), (pad, 0), (0, 0)), constant_values=255)
    rows, columns, h, w, c = tiles.shape
    image = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)
    return image[..., 0] if c == 1 else image


def save(path: Path, figure: Figure) -> np.ndarray:
    """Write a figure to a PNG file, close the figure, and return its pixels, uint8 [H, W, 3]."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, file.getvalue())
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))
