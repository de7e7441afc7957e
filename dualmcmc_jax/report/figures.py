"""Pictures of samples, chains and neighbours, as PNG files."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from dualmcmc_jax.runtime.workdirs import replace

TITLES = {"generator": "generator", "revised": "after the x-revision"}


def samples(drawn: dict[str, np.ndarray]) -> Figure:
    """Generator samples beside their revisions: images [N, H, W, C] as grids, vectors [N, d] by their first two."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.3), layout="constrained")
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        x = drawn[name]
        if x.ndim == 4:
            show(axis, grid(x), title)
            continue
        axis.set_title(title)
        limit = 1.1 * np.percentile(np.abs(np.concatenate([*drawn.values()])), 99.5)
        if x.shape[1] == 1:
            axis.hist(x[:, 0], np.linspace(-limit, limit, 60), density=True)
            axis.set(xlabel="x1", ylabel="density")
        else:
            axis.plot(x[:, 0], x[:, 1], ".", markersize=2, alpha=0.5)
            axis.set_aspect("equal")
            axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="x1", ylabel="x2")
    return figure


def known(log_densities: dict[str, np.ndarray], drawn: dict[str, np.ndarray], *, half_width: float) -> Figure:
    """The densities of the data and of the EBM [side, side] beside samples [N, 2] before and after the x-revision."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), layout="constrained", sharex=True, sharey=True)
    brightest, box = np.exp(log_densities["data"]).max(), 4 * (half_width,)
    inside = np.exp(log_densities["data"]) > 1e-4 * brightest
    side = np.linspace(-half_width, half_width, len(inside))
    limit = 1.15 * max(np.abs(side[inside.any(axis)]).max() for axis in (0, 1))
    for axis, (name, title) in zip(axes, {"data": "true density", "ebm": "density of the EBM"}.items(), strict=False):
        extent = np.multiply(box, (-1, 1, -1, 1))
        axis.imshow(np.exp(log_densities[name]).T, origin="lower", extent=extent, vmin=0, vmax=brightest)
        axis.set_title(title)
    for axis, (name, title) in zip(axes[2:], TITLES.items(), strict=True):
        axis.plot(*drawn[name].T, ".", markersize=2, alpha=0.5)
        axis.set_title(f"samples: {title}" if name == "generator" else f"samples {title}")
    for axis in axes:
        axis.set_aspect("equal")
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="x1")
    axes[0].set_ylabel("x2")
    return figure


def x_revision(*, x_states, x_steps, energy, **_) -> Figure:
    """The x-chains, one a row, and the mean energy along them; arguments as `strips.revisions` makes."""
    figure, (above, below) = _strip(tile(x_states.swapaxes(0, 1)), "x-revision: Langevin steps on the energy")
    _columns(above, x_steps)
    below.plot(np.arange(len(energy)), energy.mean(1))
    below.set(xlabel="Langevin step", ylabel="mean energy", xlim=(0, max(1, x_steps[-1])))
    return figure


def z_revision(*, z_states, z_steps, mse, x, **_) -> Figure:
    """The z-chains decoded, one a row, the held-out image last, and the mean squared error along them."""
    strips = tile(np.concatenate([z_states, x[None]]).swapaxes(0, 1))
    figure, (above, below) = _strip(strips, "z-revision: latents decoded on their way to the held-out image (last)")
    _columns(above, [*z_steps, "image"])
    below.plot(z_steps, mse.mean(1), ".-")
    below.set(xlabel="Langevin step", ylabel="mean squared error per pixel", xlim=(0, z_steps[-1]))
    return figure


def interpolation(*, samples, reconstructions) -> Figure:
    """Rows of images between images, [rows, points, H, W, C] each."""
    widths = [rows.shape[1] for rows in (samples, reconstructions)]
    size = (11, 0.8 + 0.58 * len(samples))
    figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained", width_ratios=widths)
    show(axes[0], tile(samples), "between two samples, each revised")
    show(axes[1], tile(reconstructions), "between the latents of two held-out images (at the ends)")
    return figure


def neighbours(*, samples, nearest, distances) -> Figure:
    """Samples [N, ...] with their nearest training images [N, k, ...], and histograms of `distances` {name: [M]}."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(2, 3))
    show(axes[0], tile(np.concatenate([samples[:, None], nearest], axis=1)), "revised sample, then nearest in training")
    histograms(axes[1], distances, "distance to the nearest training example (RMS per pixel, pixels in [-1, 1])")
    axes[1].set_title("memorised samples would lie left of held-out data")
    return figure


def long_run(*, states, steps, energy, held_out) -> Figure:
    """Chains of 1, 10 and 100 times the trained length: their energy, and images [3, N, H, W, C] after each."""
    pictures = states.ndim == 5
    figure, axes = plt.subplots(
        1, 1 + pictures, figsize=(11 if pictures else 6, 4), layout="constrained", squeeze=False
    )
    axis = axes[0, 0]
    low, middle, high = np.percentile(energy, (5, 50, 95), axis=1)
    after = np.arange(len(energy))
    axis.fill_between(after, low, high, alpha=0.25, label="chains, 5% to 95%")
    axis.plot(after, middle, label="chains, median")
    axis.axhline(held_out, color="black", linestyle=":", label="held-out data, mean")
    for step in steps:
        axis.axvline(step, color="gray", linewidth=0.5)
    axis.set(xscale="symlog", xlim=(0, after[-1]), xlabel="Langevin step", ylabel="energy", title="long chains")
    axis.legend(fontsize=8)
    if pictures:
        show(axes[0, 1], tile(states), f"rows: after {', '.join(f'{step:,}' for step in steps)} steps")
    return figure


def histograms(axis, values: dict[str, np.ndarray], label: str) -> None:
    """Densities of several sets on the same bins, what lies beyond the middle 99% of every set left out."""
    finite = {name: v[np.isfinite(v)] for name, v in values.items() if np.isfinite(v).any()}
    axis.set(xlabel=label, ylabel="probability density")
    if not finite:
        return
    low, high = (f(np.percentile(v, p) for v in finite.values()) for f, p in ((min, 0.5), (max, 99.5)))
    bins = np.linspace(low, max(high, low + 1e-9), 40)
    for name, v in finite.items():
        axis.hist(v, bins, density=True, histtype="step", label=name.replace("_", " "))
    axis.legend(fontsize=8)


def save(path: Path, figure: Figure) -> np.ndarray:
    """Writes a figure as PNG, closes it, and returns its pixels, uint8 [H, W, 3]."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, file.getvalue())
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def show(axis, pixels: np.ndarray, title: str = "") -> None:
    """An image [height, width] or [height, width, C], uint8, without ticks and frame."""
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_title(title, fontsize=10)
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


def _strip(pixels: np.ndarray, title: str):
    height = 8 * pixels.shape[0] / pixels.shape[1]
    figure, axes = plt.subplots(2, 1, figsize=(8, height + 2.6), layout="constrained", height_ratios=(height, 2))
    show(axes[0], pixels, title)
    return figure, axes


def _columns(axis, labels) -> None:
    """A label under the middle of each of evenly wide columns."""
    width = axis.images[0].get_array().shape[1] / len(labels)
    axis.set_xticks(width * (np.arange(len(labels)) + 0.5), labels, fontsize=8)
    axis.tick_params(length=0)
    axis.set_xlabel("after that many Langevin steps", fontsize=8)
