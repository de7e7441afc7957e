"""A run of Weights & Biases with the metrics and pictures of training, if log.wandb asks for it."""

import importlib.util
import logging
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.runtime.workdirs import replace

_log = logging.getLogger(__name__)
_ID = "wandb_id"
"""Name of the file in a workdir that holds the id under which a resumed run goes on."""


def check(wanted: bool) -> None:
    """Raise ValueError if the package wandb is wanted but missing."""
    spec = importlib.util.find_spec("wandb") if wanted else None
    if wanted and not (spec and spec.origin):  # a folder wandb/ is found, too
        raise ValueError("log.wandb: found True and no package wandb, expected it: pip install wandb")


def start(workdir: Path, config: dict[str, Any]) -> "Writer | None":
    """Start a run of Weights & Biases, or go on with that of the workdir.

    The project is dualmcmc_jax, or that of the environment variable WANDB_PROJECT.

    Args:
      workdir: the folder of the run.
      config: the config of the run.

    Returns:
      The writer, or None with a warning if the run could not be started.
    """
    path = workdir / _ID
    try:
        import wandb

        if not path.is_file():
            replace(path, secrets.token_hex(8))
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dualmcmc_jax"),
            name=workdir.name,
            id=path.read_text().strip(),
            resume="allow",
            config=config,
            dir=str(workdir),
        )
        return Writer(run, wandb.Image)
    except Exception as error:  # wandb raises errors of its own, of its server and of the network
        _log.warning("Weights & Biases is not written to: %s: %s", type(error).__name__, first_line(error))
        return None


class Writer:
    """A writer of one run. An error, such as that of a lost connection, ends the writing and not the training.

    Args:
      run: the run, from `wandb.init`.
      image: the function that makes a picture of pixels, `wandb.Image`.
    """

    def __init__(self, run: Any, image: Any):
        self._run, self._image = run, image

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write {name: number}."""
        self._call(lambda run: run.log(values, step=step))

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Write {name: uint8 [H, W, 3]}."""
        self._call(lambda run: run.log({name: self._image(image) for name, image in images.items()}, step=step))

    def close(self) -> None:
        """End the run."""
        self._call(lambda run: run.finish())

    def _call(self, function) -> None:
        try:
            if self._run:
                function(self._run)
        except Exception as error:
            problem = f"{type(error).__name__}: {first_line(error)}"
            _log.warning("Weights & Biases is no longer written to: %s", problem)
            self._run = None
