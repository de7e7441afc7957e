"""How well are held-out examples reconstructed (Table 3 and Figure 3 of the paper)?

A reconstruction of x is g(z) for a latent z that is inferred from x: by the inference model q(z | x) alone, or by the
z-revision. The z-revision starts at the mean of q(z | x) (Table 3, as in the authors' code), at a draw of q(z | x) (as
in training), or at noise.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax import random_streams
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import sampling, trajectories
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import image_similarity
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import curves, figures
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.runtime import parallel

_MEASURES = {
    "mse": Metric("MSE", "lower", needs=("generator",)),
    "psnr": Metric("PSNR", "higher", "dB", needs=("generator",)),
    "ssim": Metric("SSIM", "higher", "at most 1", needs=("generator",)),
}
"""Measures of the error by their names in metric keys. The learning curves have one panel each, in this order."""
SECTIONS = (
    Section(
        title="Reconstruction of held-out data",
        note=(
            "Held-out examples compared with their decoded latents, which come from the inference model q alone (its "
            "mean), or from z-chains (MCMC steps on the posterior of z). The z-chains start at the mean of q (as "
            "in Table 3 of the paper), at a draw of q (as in training), or at noise. MSE is the mean over "
            "coordinates; those of images are pixels in [-1, 1]. All numbers are means over examples."
        ),
        metrics={f"reconstruction/{{group}}/{name}": metric for name, metric in _MEASURES.items()},
        groups={
            "encoder": Group("inference model q", needs=("encoder",)),
            "encoder_mean_chain": Group("z-chain from mean of q", needs=("encoder",)),
            "encoder_chain": Group("z-chain from draw of q", needs=("encoder",)),
            "noise_chain": Group("z-chain from noise"),
        },
    ),
)
CAPTIONS = {
    "z_revision": (
        "The z-revision. Top: the decoded latents of some chains, one chain per row; the last column shows "
        "the held-out image to be reconstructed. Bottom: the mean squared error along the chains."
    ),
    "reconstruction": (
        "Reconstruction of held-out data against the training step. Dots: light evaluations during training, on at "
        "most evaluation.light_samples examples. Star: this evaluation, on all held-out examples in use."
    ),
}
_CURVE_LABELS = {
    "encoder_mean_chain": "z-chain from the mean of q",
    "encoder_chain": "z-chain from a draw of q",
    "noise_chain": "z-chain from noise",
    "encoder": "inference model q alone",
}
"""Labels of the methods in the legend of the learning curves, in this order."""


def applies(config, dataset) -> bool:
    """Return True, because every data set has held-out examples."""
    return True


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure the reconstruction errors of the held-out examples; see `reconstruct`."""
    return Measured(reconstruct(model, inputs.held_out, seed=inputs.seed))


def reconstruct(model: Model, x: np.ndarray, *, seed: int) -> dict[str, float]:
    """Measure the mean reconstruction errors of examples.

    The methods are:

    - "encoder": decode the mean of q(z | x);
    - "encoder_mean_chain": decode the end of a z-chain that starts at the mean of q(z | x);
    - "encoder_chain": decode the end of a z-chain that starts at a draw from q(z | x);
    - "noise_chain": decode the end of a z-chain that starts at a draw from N(0, I).

    The measures are "mse" in squared units of x and, for images, "psnr" in decibels and "ssim". Images smaller than
    the window of SSIM have no "ssim".

    Args:
      model: the model.
      x: [N, ...], uint8 images or float vectors.
      seed: seed of the chains.

    Returns:
      Means over the examples by "reconstruction/METHOD/MEASURE".
    """
    run = parallel.stream(_group, model.group_size, desc="reconstructing")
    errors = parallel.collect(run((model, random_streams.key(seed, Stream.RECONSTRUCTION)), len(x), x))
    return {f"reconstruction/{name}": float(np.mean(values, dtype=np.float64)) for name, values in errors.items()}


def of_examples(model: Model, x: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruct examples: decode the ends of z-chains that start as in training.

    Persistent z-chains belong to training examples. In their place, chains start at draws from N(0, I).

    Args:
      model: the model.
      x: [N, ...], uint8 images or float vectors.
      seed: seed of the chains.

    Returns:
      The reconstructions [N, ...] in the form of x, and their mean squared errors [N] in squared units of x, with
      pixels in [-1, 1].
    """
    run = parallel.stream(_reconstruction, model.group_size, desc="reconstructing")
    parts = run((model, random_streams.key(seed, Stream.RECONSTRUCTION)), len(x), x)
    reconstructions, errors = parallel.collect((sampling.finish(y), mse) for y, mse in parts)
    return reconstructions, errors


def figure(x: np.ndarray, reconstructions: np.ndarray) -> Figure:
    """Draw up to 50 examples and their reconstructions.

    Args:
      x: [N, ...], uint8 images, each of which is shown above its reconstruction, or vectors [N, d], whose first two
        coordinates are shown.
      reconstructions: [N, ...], the reconstructions.
    """
    if x.ndim == 4:
        columns, rows = min(10, len(x)), min(5, -(-len(x) // 10))
        pairs = np.full((2 * rows, columns, *x.shape[1:]), 255, np.uint8)
        for i in range(min(len(x), rows * columns)):
            row, column = divmod(i, columns)
            pairs[2 * row, column], pairs[2 * row + 1, column] = x[i], reconstructions[i]
        pixels = figures.tile(pairs)
        size = (8, 8 * pixels.shape[0] / pixels.shape[1] + 0.5)
        drawn, axis = figures.plt.subplots(figsize=size, layout="constrained")
        figures.show(axis, pixels, "odd rows: originals; even rows: their reconstructions")
        return drawn
    drawn, axis = figures.plt.subplots(figsize=(5.3, 5.3), layout="constrained")
    for points, marker, label in ((x, ".", "original"), (reconstructions, "x", "reconstruction")):
        second = points[:, 1] if x.shape[1] > 1 else np.zeros(len(points))
        axis.plot(points[:, 0], second, marker, markersize=3, label=label, linestyle="none")
    axis.set(xlabel="x1", ylabel="x2" if x.shape[1] > 1 else "")
    axis.legend(fontsize=8)
    return drawn


def summary(names: list[str], errors: np.ndarray) -> str:
    """Return a line about the mean squared errors [N] of named examples."""
    best, worst = names[int(np.argmin(errors))], names[int(np.argmax(errors))]
    return (
        f"MSE of {len(errors):,} examples: mean {errors.mean():.4g}, median {np.median(errors):.4g}, "
        f"least {errors.min():.4g} ({best}), largest {errors.max():.4g} ({worst})"
    )


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw the reconstruction errors against the training step and, for images, trajectories of z-chains."""
    drawn = {}
    if model.makes_images:
        trajectory = trajectories.z_trajectory(model, inputs.held_out, seed=inputs.seed)
        drawn["z_revision"] = trajectories.z_figure(trajectory)
    return drawn | {
        "reconstruction": _learning_curves(inputs.history, measured.metrics, step=model.step, images=model.makes_images)
    }


def _learning_curves(history: curves.History, metrics: dict[str, float], *, step: int, images: bool) -> Figure:
    """Draw MSE, PSNR and SSIM against the training step, one curve per method (Figure 3).

    The curves show the light evaluations of the history. The stars show `metrics`, which were measured at `step`.
    """
    measures = [measure for measure in _MEASURES if f"reconstruction/encoder/{measure}" in metrics]
    size = (3.7 * len(measures), 3.4)
    figure, axes = figures.plt.subplots(1, len(measures), figsize=size, layout="constrained", squeeze=False)
    for axis, measure in zip(axes[0], measures, strict=True):
        for method, label in _CURVE_LABELS.items():
            name = f"reconstruction/{method}/{measure}"
            (line,) = axis.plot(*history.get(f"light/{name}", ([], [])), ".-", label=label)
            axis.plot(step, metrics[name], "*", markersize=9, color=line.get_color())
        unit = (" per pixel" if images else " per coordinate") if measure == "mse" else ""
        axis.set(xlabel="training step", ylabel=_MEASURES[measure].heading.replace("MSE", f"MSE{unit}"))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(measures), fontsize=8)
    return figure


def _reconstruction(constants, index, x):
    """Reconstruct one group of examples x [B, ...], and return the reconstructions [B, ...] and their errors [B]."""
    model, key = constants
    x, init = to_float(x, model.dtype), model.config.z_chain.init
    settings = {"init": "noise"} if init == "persistent" else {}
    y = model.bound().reconstruct(chain_keys(jax.random.fold_in(key, 0), index), x, **settings)[1]
    return y, image_similarity.mse(y, x)


def _group(constants, index, x):
    """Reconstruct one group of examples x [B, ...], and return the errors [B] by "METHOD/MEASURE"."""
    model, key = constants
    bound, x = model.bound(), to_float(x, model.dtype)
    measures = {"mse": image_similarity.mse}
    if model.makes_images:
        measures["psnr"] = image_similarity.psnr
        if min(x.shape[1:3]) >= image_similarity.WINDOW:
            measures["ssim"] = image_similarity.ssim
    revise = lambda init, i: bound.reconstruct(chain_keys(jax.random.fold_in(key, i), index), x, init=init)[1]
    mean, _ = bound.encode(x)
    reconstructions = {
        "encoder": bound.decode(mean),
        "encoder_mean_chain": revise(mean, 2),
        "encoder_chain": revise("encoder", 0),
        "noise_chain": revise("noise", 1),
    }
    return {
        f"{method}/{name}": measure(y, x) for method, y in reconstructions.items() for name, measure in measures.items()
    }
