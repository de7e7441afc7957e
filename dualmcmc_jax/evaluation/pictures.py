"""Figures that training writes at regular intervals: samples, and trajectories of both chains."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dualmcmc_jax.evaluation import sampling, trajectories
from dualmcmc_jax.model import Model
from dualmcmc_jax.report import figures
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training.state import TrainState

_log = logging.getLogger(__name__)


def names(config) -> tuple[str, ...]:
    """Return the names of the figures that training draws.

    For images these are "samples", "z_revision" and, if the x-chain has steps, "x_revision"; otherwise only "samples".
    """
    if len(config.data.shape) != 3:
        return ("samples",)
    num_steps = config.evaluation.x_chain[0] if config.evaluation.x_chain else config.x_chain.num_steps
    return ("samples", "z_revision", *(["x_revision"] if num_steps else []))


def missing(config, folder: Path, step: int) -> bool:
    """Return whether a figure of a step is missing in the folder of `drawer`."""
    return not all(_path(folder, name, step).is_file() for name in names(config))


def _path(folder: Path, name: str, step: int) -> Path:
    return folder / f"{name}_{step:08d}.png"


def drawer(config, held_out: np.ndarray, folder: Path) -> Callable[[int, TrainState], dict[str, np.ndarray]]:
    """Return the function that draws figures during training.

    Args:
      config: the whole config.
      held_out: [N, ...], held-out examples.
      folder: the folder to which the figures are written as PNG files.

    Returns:
      A function from the step and the train state to the pixels of the figures, uint8 [H, W, 3], by `names`. If a
      figure cannot be written, the function logs a warning and leaves the figure out.
    """

    def draw(step: int, state: TrainState) -> dict[str, np.ndarray]:
        model, seed = Model.create(config, state.average, step=step), config.train.seed
        samples = parallel.collect(sampling.stream(model, num_samples=config.log.num_images, seed=seed))
        draws = {
            "samples": lambda: sampling.figure(samples),
            "z_revision": lambda: trajectories.z_figure(trajectories.z_trajectory(model, held_out, seed=seed)),
            "x_revision": lambda: trajectories.x_figure(trajectories.x_trajectory(model, seed=seed)),
        }
        pictures = {}
        for name in names(config):
            path = _path(folder, name, step)
            try:
                pictures[name] = figures.save(path, draws[name]())
            except OSError as error:
                _log.warning("%s could not be written (%s). Training continues.", path, error.strerror)
        return pictures

    return draw
