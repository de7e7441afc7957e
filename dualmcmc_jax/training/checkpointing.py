"""Checkpoints of train states, and runs that begin with a given state."""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from dualmcmc_jax.runtime import storage, workdirs
from dualmcmc_jax.runtime.checkpoints import Checkpoints, exist
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.state import TrainState


def save(store: Checkpoints, state: TrainState) -> None:
    """Save a state under its own step; every process calls it.

    Raises:
      ValueError: the folder is gone, has no space left, or the save before this one failed.
    """
    store.save(int(state.step), train_state.stored(state))


def read(store: Checkpoints, config: ConfigDict, step: int | None = None) -> TrainState | None:
    """Read the state of a step, by default the newest, as host arrays; None if there are no checkpoints.

    Raises:
      ValueError: the checkpoint of the given step is damaged, or all are.
    """
    template = train_state.abstract(config)
    stored = store.restore(train_state.stored(template), step, step_of=lambda tree: int(tree.step))
    return None if stored is None else train_state.from_stored(stored, template)


def restore(config: ConfigDict, workdir: Path, *, step: int | None = None, argument: str = "workdir") -> TrainState:
    """Read the state of a run for use, and write nothing.

    Callers check first that the run is one of this config.

    Args:
      config: the whole config.
      workdir: the folder of the run.
      step: updates made; default: that of the newest checkpoint.
      argument: the caller's name of the workdir, for error messages.

    Raises:
      ValueError: there is no such checkpoint, or it is damaged.
    """
    state = None
    if (storage.home(workdir) / "checkpoints").is_dir():
        with Checkpoints(workdir, read_only=True) as store:
            if step is not None and step not in store.steps():
                raise ValueError(f"step: found {step}, expected one of {', '.join(map(str, store.steps()))}")
            state = read(store, config, step)
    if state is None:
        folder = f"{storage.shown(workdir)}/checkpoints"
        raise ValueError(f"{argument}: found no checkpoint in {folder}, expected one: train first")
    return state


def begin(config: ConfigDict, workdir: Path, state: TrainState, *, check: Callable[[], None] | None = None) -> None:
    """Make a workdir whose run goes on from a state.

    Args:
      config: the whole config.
      workdir: the folder to make.
      state: the state to go on from.
      check: see `workdirs.claim`.

    Raises:
      ValueError: the workdir has checkpoints already, it cannot be written to, or check raises it.
    """
    if exist(workdir):
        raise ValueError(f"workdir: found {storage.shown(workdir)} with checkpoints, expected a new folder")
    with workdirs.claim(workdir, config.to_dict(), check=check), Checkpoints(workdir, config.checkpoint.keep) as store:
        save(store, state)
