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


def drawer(config, held_out: np.ndarray, folder: Path) -> Callable[[int, TrainState], dict[str, np.ndarray]]:
    """Return the function that draws figures during training.

    Args:
      config: the whole config.
      held_out: [N, ...], held-out examples.
      folder: the folder to which the figures are written as PNG files.

    Returns:
      A function from the step and the train state to the pixels of the figures, uint8 [H, W, 3], by name. For images
      the figures are "samples", "z_revision" and, if the x-chain has steps, "x_revision"; otherwise only "samples".
      If a figure cannot be written, the function logs a warning and leaves the figure out.
    """

    def draw(step: int, state: TrainState) -> dict[str, np.ndarray]:
        model, seed = Model.create(config, state.average, step=step), config.train.seed
        samples = parallel.collect(sampling.stream(model, num_samples=config.log.num_images, seed=seed))
        drawn = {"samples": sampling.figure(samples)}
        if model.makes_images:
            drawn["z_revision"] = trajectories.z_figure(trajectories.z_trajectory(model, held_out, seed=seed))
            if model.config.x_chain.num_steps:
                drawn["x_revision"] = trajectories.x_figure(trajectories.x_trajectory(model, seed=seed))
        pictures = {}
        for name, figure in drawn.items():
            path = folder / f"{name}_{step:08d}.png"
            try:
                pictures[name] = figures.save(path, figure)
            except OSError as error:
                _log.warning("%s could not be written (%s). Training continues.", path, error.strerror)
        return pictures

    return draw
