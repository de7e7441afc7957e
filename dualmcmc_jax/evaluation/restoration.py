"""How well is the hidden half of held-out images restored?

The lower half of each image is hidden, and `Model.restore` draws it. The mean of the draws is compared with the mean
of the training data, with the nearest training image by the observed pixels, and with the generator alone. The module
also restores images of users, for --mode=restore.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image, UnidentifiedImageError

from dualmcmc_jax import random_streams
from dualmcmc_jax.core import operators
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.operators import Operator
from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import subset, to_float
from dualmcmc_jax.evaluation import sampling
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.features import classifiers
from dualmcmc_jax.metrics import image_similarity, neighbours
from dualmcmc_jax.model import Model, check_observation
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import figures
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.spelling import one_of
from dualmcmc_jax.training import objectives

NUM_IMAGES = 50
"""Largest number of held-out images whose lower half the evaluation restores."""
SAMPLES_PER_IMAGE = 20
"""An evaluation that draws few samples also restores few images: one for this number of `evaluation.num_samples`."""
NUM_SAMPLES = 10
"""Number of samples for each of them."""
NUM_SHOWN = 10
"""Largest number of images on a contact sheet."""
SECTIONS = (
    Section(
        title="Restoration of a hidden half",
        note=(
            f"The lower half of up to {NUM_IMAGES} held-out images is hidden, and completed from the upper half: by "
            "the mean of the training data, by the training image that is nearest in the upper half, by the mean of "
            f"{NUM_SAMPLES} decoded z-chains (the generator alone), and by the mean of the same samples after the "
            "x-chain. MSE and PSNR are over the hidden pixels, in [-1, 1]. Agreement is the share of completed images "
            "that a classifier puts into the class of the original."
        ),
        metrics={
            "restoration/{group}/mse": Metric("MSE of hidden pixels", "lower"),
            "restoration/{group}/psnr": Metric("PSNR of hidden pixels", "higher", "dB"),
            "restoration/{group}/agreement": Metric("Agreement with the original's class", "higher"),
        },
        groups={
            "training_mean": Group("mean of training data"),
            "nearest": Group("nearest training image"),
            "generator": Group("generator alone", needs=("generator",)),
            "restored": Group("after the x-chain", needs=("generator", "energy")),
        },
    ),
)
CAPTIONS = {
    "restoration": (
        "Restoration of a hidden half. From top to bottom: the held-out image, what is observed, one sample, the mean "
        "of all samples, and their standard deviation (black: 0, white: 1)."
    )
}


class Restorations(NamedTuple):
    """Restored images.

    Attributes:
      observed: [N, H, W, C], uint8, what is observed, in the size of the originals. Hidden pixels are gray.
      samples: [N, M, H, W, C], uint8, M samples per observation.
      mean: [N, H, W, C], uint8, the mean of the samples.
      std: [N, H, W, C], their standard deviation in each pixel, with pixels in [-1, 1].
      generated: [N, H, W, C], uint8, the mean of the decoded z-chains.
      start: [N, H, W, C], uint8, the mean of the initial states of the x-chains.
      misfit: [N], root mean square of y - A x over observed values and samples, with pixels in [-1, 1].
    """

    observed: np.ndarray
    samples: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    generated: np.ndarray
    start: np.ndarray
    misfit: np.ndarray


class Task(NamedTuple):
    """What --task names.

    Attributes:
      operator: (value of the flag of the task) -> operator.
      flag: name of the flag that only this task uses, and needs; "" for none.
      needs_noise: whether noise_std must be positive.
      observed_shape: (shape of the images, value of the flag) -> the shape of an observation.
    """

    operator: Callable[[Any], Operator]
    flag: str = ""
    needs_noise: bool = False
    observed_shape: Callable[[tuple[int, ...], Any], tuple[int, ...]] = lambda shape, _: shape


TASKS = {
    "inpaint": Task(lambda path: operators.inpainting(read_mask(path)), "mask"),
    "denoise": Task(lambda _: operators.denoising(), needs_noise=True),
    "superres": Task(
        operators.average_pooling,
        "factor",
        observed_shape=lambda shape, side: (*(n // side for n in shape[:2]), shape[2]),
    ),
}
"""The tasks of --mode=restore by their names."""


def read_mask(path: str) -> np.ndarray:
    """Read a mask from an image file: [H, W], True where a pixel is bright (observed), False where it is dark (hidden).

    Raises:
      ValueError: there is no image at the path.
    """
    try:
        with Image.open(Path(path).expanduser()) as file:
            return np.asarray(file.convert("L")) >= 128
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        problem = getattr(error, "strerror", None) or "not an image"
        raise ValueError(f"mask: found {path} unreadable ({problem}), expected an image file") from error


def task_operator(
    task: str, shape: tuple[int, ...], *, noise_std: float | None, flags: Mapping[str, Any]
) -> tuple[Operator, float]:
    """Return the operator of a task and the noise's standard deviation, after checks.

    Args:
      task: a name in TASKS.
      shape: [H, W, C] of the images.
      noise_std: standard deviation of the noise, with pixels in [-1, 1]. None: not given, 0.
      flags: the values of the flags "mask" and "factor"; None for those that are not given.

    Raises:
      ValueError: the task is unknown, or a flag is missing, not used by this task, or has a wrong value.
    """
    if task not in TASKS:
        raise ValueError(f"task: found {task!r}, expected {one_of(task, TASKS)}")
    row = TASKS[task]
    if len(shape) != 3:
        raise ValueError(f"mode: found 'restore' with examples of shape {shape}, expected a model of images (H, W, C)")
    for name, value in flags.items():
        if value is not None and name != row.flag:
            users = " or ".join(f"--task={other}" for other in TASKS if TASKS[other].flag == name)
            raise ValueError(f"{name}: found with --task={task}, expected {users}")
        if value is None and name == row.flag:
            raise ValueError(f"{name}: found nothing, expected a value for --task={task}")
    if noise_std is None and row.needs_noise:
        raise ValueError("noise_std: found nothing, expected the noise's standard deviation, with pixels in [-1, 1]")
    operator, noise_std = row.operator(flags.get(row.flag)), noise_std or 0.0
    check_observation(operator, shape, noise_std)
    return operator, noise_std


def load_observed(name: str, data: ConfigDict, task: str, flags: Mapping[str, Any]) -> tuple[np.ndarray, list[str]]:
    """Load observations from --input: images that are already partly hidden, noisy or small.

    Args:
      name: a path, or a data source, as `sources.load_all` takes it.
      data: the config's `data` section. Images are cropped and resized to the size of an observation.
      task: a name in TASKS.
      flags: the values of the flags "mask" and "factor".

    Returns:
      The observations in floats, with pixels in [-1, 1], and their names.
    """
    data, row = data.copy_and_resolve_references(), TASKS[task]
    shape = row.observed_shape(tuple(data.shape), flags.get(row.flag))
    if shape != tuple(data.shape):
        data.update(shape=shape, crop=())  # the crop box is in pixels of the originals
    y, names = sources.load_all(name, data, argument="input")
    return np.asarray(to_float(y, np.float32)), names


def metrics(names: list[str], restored: Restorations, psnr: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """Return the contents of metrics.json: means over the images, and one entry per image by its name."""
    columns = {"misfit": restored.misfit} | {f"psnr_{name}": values for name, values in (psnr or {}).items()}
    finite = lambda value: float(value) if np.isfinite(value) else None  # the PSNR of an exact image is infinite
    rows = {image: {key: finite(values[i]) for key, values in columns.items()} for i, image in enumerate(names)}
    return {key: finite(values.mean()) for key, values in columns.items()} | {"images": rows}


def degrade(x: np.ndarray, operator: Operator, *, noise_std: float, seed: int) -> np.ndarray:
    """Return observations y = A x + noise [N, ...] in floats of intact images x [N, H, W, C] in uint8."""
    y = np.asarray(operator(to_float(x, np.float32)))
    noise = random_streams.random_state(seed, Stream.RESTORATION_NOISE).standard_normal(y.shape)
    return (y + noise_std * noise).astype(np.float32)


def restore(
    model: Model, y: np.ndarray, operator: Operator, *, noise_std: float, num_samples: int, seed: int
) -> Restorations:
    """Restore images from observations, on all devices.

    Args:
      model: the model, of images.
      y: [N, ...] observations in floats, with pixels in [-1, 1].
      operator: A.
      noise_std: standard deviation of the noise, with pixels in [-1, 1].
      num_samples: number of samples per observation.
      seed: seed of the chains.
    """
    run = parallel.stream(_group_of(noise_std, num_samples), max(1, model.group_size // num_samples), desc="restoring")
    parts = run((model, operator, random_streams.key(seed, Stream.RESTORATION)), len(y), y)
    restored = parallel.collect(
        {name: part[name] if name in ("std", "misfit") else sampling.finish(part[name]) for name in part}
        for part in parts
    )
    shown = operator.gram(jnp.asarray(y), jnp.ones_like)
    if shown.shape[1] != restored["mean"].shape[1]:
        side = restored["mean"].shape[1] // shown.shape[1]
        shown = shown.repeat(side, axis=1).repeat(side, axis=2)
    return Restorations(observed=sampling.finish(np.asarray(shown)), **restored)


def errors(x: np.ndarray, restored: Restorations) -> dict[str, np.ndarray]:
    """Return PSNR [N] in decibels of restored images with respect to their originals x [N, H, W, C], all in uint8.

    Returns:
      The PSNR of "observed" (what is observed, as shown), of "mean", of "sample" (the mean PSNR of the samples), of
      "start" (the mean before the x-chain), and of "generator" (the mean of the decoded z-chains).
    """
    psnr = lambda y: np.asarray(image_similarity.psnr(to_float(x, np.float64), to_float(y, np.float64)))
    of_samples = np.stack([psnr(restored.samples[:, i]) for i in range(restored.samples.shape[1])])
    return {
        "observed": psnr(restored.observed),
        "mean": psnr(restored.mean),
        "sample": of_samples.mean(0),
        "start": psnr(restored.start),
        "generator": psnr(restored.generated),
    }


def figure(restored: Restorations, x: np.ndarray | None) -> Figure:
    """Draw a contact sheet of up to NUM_SHOWN restored images, one column each.

    Args:
      restored: the restorations.
      x: [N, H, W, C], uint8, the originals, which become the first row; None if they are not known.
    """
    rows = {} if x is None else {"original": x}
    spread = np.round(255 * np.nan_to_num(np.clip(restored.std, 0, 1))).astype(np.uint8)
    rows |= {"observed": restored.observed, "sample": restored.samples[:, 0], "mean": restored.mean, "spread": spread}
    pixels = figures.tile(np.stack([row[:NUM_SHOWN] for row in rows.values()]))
    size = (0.7 * min(NUM_SHOWN, len(spread)) + 1.4, 0.7 * len(rows))
    drawn, axis = figures.plt.subplots(figsize=size, layout="constrained")
    figures.show(axis, pixels)
    height = pixels.shape[0] / len(rows)
    axis.set_yticks(height * (np.arange(len(rows)) + 0.5), [*rows], fontsize=9)
    axis.tick_params(length=0)
    return drawn


def applies(config, dataset) -> bool:
    """Return whether the data are images of two rows or more, and an objective trains the generator."""
    return len(config.data.shape) == 3 and config.data.shape[0] > 1 and "generator" in objectives.trained(config)


def measure(model: Model, inputs: Inputs) -> Measured:
    """Hide the lower half of some held-out images, and measure how well it is restored. The arrays are for `draw`."""
    num = min(NUM_IMAGES, max(1, model.config.evaluation.num_samples // SAMPLES_PER_IMAGE))
    x = inputs.held_out[subset(len(inputs.held_out), num)]
    is_observed = np.arange(x.shape[1])[:, None, None] < x.shape[1] // 2
    operator = operators.inpainting(np.broadcast_to(is_observed, x.shape[1:]))
    y = degrade(x, operator, noise_std=0.0, seed=inputs.seed)
    restored = restore(model, y, operator, noise_std=0.0, num_samples=NUM_SAMPLES, seed=inputs.seed)
    train = inputs.dataset.train
    upper = lambda x: to_float(x, np.float32)[:, : x.shape[1] // 2].reshape(len(x), -1)
    _, nearest = neighbours.nearest(x, train, to_vector=upper)
    mean = sum(float(len(part)) * part.mean(0, dtype=np.float64) for part in _chunks(train)) / len(train)
    answers = {
        "training_mean": np.broadcast_to(np.round(mean).astype(np.uint8), x.shape),
        "nearest": train[nearest[:, 0]],
        "generator": restored.generated,
        "restored": restored.mean,
    }
    classify = classifier(inputs)
    metrics = {}
    for name, answer in answers.items():
        completed = np.where(is_observed, x, answer)
        difference = to_float(completed, np.float64) - to_float(x, np.float64)
        mse = (difference**2).sum((1, 2, 3)) / (~is_observed).sum() / np.prod(x.shape[2:])
        metrics[f"restoration/{name}/mse"] = float(mse.mean())
        psnr = 10 * np.log10(image_similarity.RANGE**2 / np.maximum(mse, 1e-10))
        metrics[f"restoration/{name}/psnr"] = float(psnr.mean())
        if classify:
            metrics[f"restoration/{name}/agreement"] = float(np.mean(classify(completed) == classify(x)))
    return Measured(metrics, (x, restored))


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw the contact sheet of the restored images."""
    x, restored = measured.arrays
    return {"restoration": figure(restored, x)}


def classifier(inputs: Inputs) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return a function from uint8 images [N, H, W, C] to their classes [N], or None if the data have no classifier."""
    if inputs.space.name == "mnist_classifier":
        return lambda x: inputs.space.extract(x)[1].argmax(1)
    if inputs.dataset.classifier:
        probabilities = classifiers.CLASSIFIERS[inputs.dataset.classifier]()
        return lambda x: probabilities(x).argmax(1)
    return None


def summary(restored: Restorations, psnr: Mapping[str, np.ndarray] | None, *, noise_std: float) -> str:
    """Return lines about restored images: their misfit and, if the originals are known, their PSNR."""
    num, num_samples = restored.samples.shape[:2]
    lines = [
        f"{num:,} images, {num_samples} samples each; root mean square of y - A x: {restored.misfit.mean():.3g} "
        f"(noise_std {noise_std:g})"
    ]
    if psnr:
        labels = {"mean": "mean of the samples", "sample": "single samples", "start": "mean before the x-chain"}
        labels |= {"generator": "generator alone", "observed": "what is observed"}
        lines.append("PSNR in dB: " + ", ".join(f"{labels[name]} {psnr[name].mean():.2f}" for name in labels))
    return "\n".join(lines)


@functools.lru_cache(maxsize=16)
def _group_of(noise_std: float, num_samples: int) -> Callable:
    """Return `_group` with these settings. Equal settings have the same function, which is compiled once."""
    return functools.partial(_group, noise_std=noise_std, num_samples=num_samples)


def _group(constants, index, y, *, noise_std, num_samples):
    """Restore one group of observations y [B, ...], and return the fields of `Restorations` in floats."""
    model, operator, key = constants
    keys = chain_keys(key, index)
    y = y.astype(model.dtype)
    drawn = model.bound().restore(keys, y, operator, noise_std=noise_std, num_samples=num_samples)
    misfit = jnp.sqrt((drawn.misfit**2).mean(1))
    images = {"samples": drawn.samples, "mean": drawn.mean, "generated": drawn.generated.mean(1)}
    images["start"] = drawn.start.clip(-1, 1).mean(1)
    return images | {"std": drawn.std, "misfit": misfit}


def _chunks(x: np.ndarray):
    return (x[start : start + neighbours.CHUNK] for start in range(0, len(x), neighbours.CHUNK))
