"""Pictures of a model while it trains."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dualmcmc_jax.evaluation import drawing, revisions
from dualmcmc_jax.report import figures
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training.state import TrainState

_log = logging.getLogger(__name__)


def drawer(config, held_out: np.ndarray, folder: Path) -> Callable[[int, TrainState], dict[str, np.ndarray]]:
    """draw(step, state) writes samples and, of images, both revisions into folder as PNG; returns them by name."""
    draw_samples = drawing.sampler(config)
    is_image = len(config.data.shape) == 3
    revise = revisions.revisions(config, held_out) if is_image else None

    def draw(step: int, state: TrainState) -> dict[str, np.ndarray]:
        num, seed = config.log.num_images, config.train.seed
        drawn = parallel.collect(draw_samples(state.average, num_samples=num, seed=seed))
        made = {"samples": figures.samples(drawn)}
        if revise:
            chains = revise(state.average, seed=seed)
            made["z_revision"] = figures.z_revision(**chains)
            if drawing.x_chain(config)[0]:
                made["x_revision"] = figures.x_revision(**chains)
        pictures = {}
        for name, figure in made.items():
            path = folder / f"{name}_{step:08d}.png"
            try:
                pictures[name] = figures.save(path, figure)
            except OSError as error:
                _log.warning("%s is not written (%s); training goes on", path, error.strerror)
        return pictures

    return draw
