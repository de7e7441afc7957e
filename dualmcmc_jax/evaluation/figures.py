"""Pictures of what a model does, as PNG files."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TITLES = {"generator": "generator", "revised": "after the x-revision"}


def samples(path: Path, drawn: dict[str, np.ndarray]) -> None:
    """Generator samples beside their revisions: images [N, H, W, C] as grids, vectors [N, 2] as points."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.3), layout="constrained")
    for axis, (name, x) in zip(axes, drawn.items(), strict=True):
        axis.set_title(TITLES[name])
        if x.ndim == 4:
            tiles = grid(x)
            axis.imshow(tiles, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
        else:
            axis.plot(*x.T, ".", markersize=2, alpha=0.5)
            axis.set_aspect("equal")
            axis.set(xlim=(-4, 4), ylim=(-4, 4), xlabel="x1", ylabel="x2")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def grid(x: np.ndarray, pad: int = 1) -> np.ndarray:
    """uint8 [N, H, W, C] as one image of the largest square number of tiles, [S, S, C] or [S, S], padded with white."""
    side = int(len(x) ** 0.5)
    tiles = np.pad(x[: side * side], ((0, 0), (pad, 0), (pad, 0), (0, 0)), constant_values=255)
    _, h, w, c = tiles.shape
    image = tiles.reshape(side, side, h, w, c).transpose(0, 2, 1, 3, 4).reshape(side * h, side * w, c)
    return image[..., 0] if c == 1 else image
