"""Figures of a model while it trains."""

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
    """Return a function that draws samples and, of images, trajectories of both chains.

    Args:
      config: the whole config.
      held_out: [N, ...], held-out examples.
      folder: receives the figures as PNG files.

    Returns:
      draw(step, state) -> pixels of the figures, uint8 [H, W, 3], by name. A figure that cannot be written is left out
      with a warning.
    """

    def draw(step: int, state: TrainState) -> dict[str, np.ndarray]:
        model, seed = Model.create(config, state.average, step=step), config.train.seed
        samples = parallel.collect(sampling.stream(model, num_samples=config.log.num_images, seed=seed))
        made = {"samples": sampling.figure(samples)}
        if model.makes_images:
            made["z_revision"] = trajectories.z_figure(trajectories.z_trajectory(model, held_out, seed=seed))
            if model.config.x_chain.num_steps:
                made["x_revision"] = trajectories.x_figure(trajectories.x_trajectory(model, seed=seed))
        pictures = {}
        for name, figure in made.items():
            path = folder / f"{name}_{step:08d}.png"
            try:
                pictures[name] = figures.save(path, figure)
            except OSError as error:
                _log.warning("%s is not written (%s); training goes on", path, error.strerror)
        return pictures

    return draw
