"""How well are held-out examples reconstructed (Table 3 and Figure 3 of the paper)?"""

import jax
import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax import random_streams
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import trajectories
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import image_similarity
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import curves, figures
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.runtime import parallel

SECTIONS = (
    Section(
        title="Reconstruction of held-out data",
        note="mse: squared units of pixels in [-1, 1]; psnr: decibels; each a mean over images.",
        metrics={
            "reconstruction/{group}/mse": Metric("mse", "lower", needs=("generator",)),
            "reconstruction/{group}/psnr": Metric("psnr", "higher", "dB", needs=("generator",)),
            "reconstruction/{group}/ssim": Metric("ssim", "higher", needs=("generator",)),
        },
        groups={
            "encoder": Group("inference model", needs=("encoder",)),
            "encoder_chain": Group("z-revision from it", needs=("encoder",)),
            "noise_chain": Group("z-revision from noise"),
        },
    ),
)
CAPTIONS = {
    "z_revision": "The z-revision: latents decoded on their way to held-out images, and the error.",
    "reconstruction": "Dots: light evaluations while training; star: this evaluation, of all held-out data.",
}
_CURVES = {
    "encoder_chain": "z-revision from the inference model",
    "noise_chain": "z-revision from noise",
    "encoder": "inference model alone",
}
_AXES = {"mse": "mean squared error", "psnr": "PSNR, dB", "ssim": "SSIM"}


def applies(config, dataset) -> bool:
    """Every data set has held-out examples."""
    return True


def measure(model: Model, inputs: Inputs) -> Measured:
    """Reconstruct the held-out examples; see `reconstruct`."""
    return Measured(reconstruct(model, inputs.held_out, seed=inputs.seed))


def reconstruct(model: Model, x: np.ndarray, *, seed: int) -> dict[str, float]:
    """Measure mean errors of reconstructions, by "reconstruction/METHOD/MEASURE".

    The methods are "encoder": g of the mean of q(z | x); "encoder_chain": after the z-revision of a draw of q(z | x);
    "noise_chain": after as many steps from N(0, I). The measures are mse in squared units of x, and of images psnr in
    decibels and, if its window fits, ssim.

    Args:
      model: the model.
      x: [N, ...], uint8 images or vectors.
      seed: seed of the chains.
    """
    run = parallel.stream(_group, model.group_size, desc="reconstructing")
    errors = parallel.collect(run((model, random_streams.key(seed, Stream.RECONSTRUCTION)), len(x), x))
    return {f"reconstruction/{name}": float(np.mean(values, dtype=np.float64)) for name, values in errors.items()}


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw the z-chain of images, and the errors against training."""
    made = {}
    if model.makes_images:
        trajectory = trajectories.z_trajectory(model, inputs.held_out, seed=inputs.seed)
        made["z_revision"] = trajectories.z_figure(trajectory)
    return made | {"reconstruction": _learning_curves(inputs.history, measured.metrics, step=model.step)}


def _learning_curves(history: curves.History, metrics: dict[str, float], *, step: int) -> Figure:
    """Draw MSE, PSNR and SSIM against the training step, a curve per method (Figure 3).

    The curves are those of the light evaluations. A star is the result of this evaluation, of all held-out examples.
    """
    measures = [measure for measure in _AXES if f"reconstruction/encoder/{measure}" in metrics]
    size = (3.7 * len(measures), 3.4)
    figure, axes = figures.plt.subplots(1, len(measures), figsize=size, layout="constrained", squeeze=False)
    for axis, measure in zip(axes[0], measures, strict=True):
        for method, label in _CURVES.items():
            name = f"reconstruction/{method}/{measure}"
            (line,) = axis.plot(*history.get(f"light/{name}", ([], [])), ".-", label=label)
            axis.plot(step, metrics[name], "*", markersize=9, color=line.get_color())
        axis.set(xlabel="training step", ylabel=_AXES[measure])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _group(constants, index, x):
    """Reconstruct one group of examples x [B, ...]; return errors [B] by "METHOD/MEASURE"."""
    model, key = constants
    bound, x = model.bound(), to_float(x, model.dtype)
    measures = {"mse": image_similarity.mse}
    if model.makes_images:
        measures["psnr"] = image_similarity.psnr
        if min(x.shape[1:3]) >= image_similarity.WINDOW:
            measures["ssim"] = image_similarity.ssim
    revise = lambda init, i: bound.reconstruct(chain_keys(jax.random.fold_in(key, i), index), x, init=init)[1]
    reconstructions = {
        "encoder": bound.decode(bound.encode(x)[0]),
        "encoder_chain": revise("encoder", 0),
        "noise_chain": revise("noise", 1),
    }
    return {
        f"{method}/{name}": measure(y, x) for method, y in reconstructions.items() for name, measure in measures.items()
    }
