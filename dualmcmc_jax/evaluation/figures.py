"""Pictures of what a model does, as PNG files."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

TITLES = {"generator": "generator", "revised": "after the x-revision"}


def samples(drawn: dict[str, np.ndarray]) -> Figure:
    """Generator samples beside their revisions: images [N, H, W, C] as grids, vectors [N, 2] as points."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.3), layout="constrained")
    for axis, (name, x) in zip(axes, drawn.items(), strict=True):
        axis.set_title(TITLES[name])
        if x.ndim == 4:
            _image(axis, grid(x))
        else:
            axis.plot(*x.T, ".", markersize=2, alpha=0.5)
            axis.set_aspect("equal")
            axis.set(xlim=(-4, 4), ylim=(-4, 4), xlabel="x1", ylabel="x2")
    return figure


def revisions(*, x_states, energy, x, z_states, mse, x_steps, z_steps) -> Figure:
    """Both revisions, step by step: chains in rows, their curves below; arguments as `pictures.revisions` makes."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.5), layout="constrained", height_ratios=(3, 2))
    strips = np.concatenate([z_states, x[None]])
    for column, (states, title) in enumerate(
        ((x_states, "x-revision: from the generator's image"), (strips, "z-revision: decoded latents; last, the image"))
    ):
        axes[0, column].set_title(title)
        _image(axes[0, column], tile(states.swapaxes(0, 1)))
    axes[1, 0].plot(np.arange(len(energy)), energy.mean(1))
    axes[1, 0].set(xlabel="Langevin step", ylabel="mean energy")
    axes[1, 1].plot(z_steps, mse.mean(1), ".-")
    axes[1, 1].set(xlabel="Langevin step", ylabel="mean squared error per pixel")
    axes[0, 0].set_xlabel(f"after {', '.join(map(str, x_steps))} steps")
    axes[0, 1].set_xlabel(f"after {', '.join(map(str, z_steps))} steps")
    return figure


def save(path: Path, figure: Figure) -> np.ndarray:
    """Writes a figure as PNG, closes it, and returns its pixels, uint8 [H, W, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _image(axis, pixels):
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def grid(x: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] as one image of the largest square number of tiles."""
    side = int(len(x) ** 0.5)
    return tile(x[: side * side].reshape(side, side, *x.shape[1:]))


def tile(x: np.ndarray, pad: int = 1) -> np.ndarray:
    """uint8 [rows, columns, H, W, C] as one image, [height, width, C] or without C if gray, padded with white."""
    tiles = np.pad(x, ((0, 0), (0, 0), (pad, 0), (pad, 0), (0, 0)), constant_values=255)
    rows, columns, h, w, c = tiles.shape
    image = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)
    return image[..., 0] if c == 1 else image
