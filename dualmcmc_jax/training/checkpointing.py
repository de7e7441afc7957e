"""How are train states saved and restored? Checkpoints of a workdir, and workdirs that start from a given state."""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from dualmcmc_jax.runtime import storage, workdirs
from dualmcmc_jax.runtime.checkpoints import Checkpoints
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.state import TrainState


def save(store: Checkpoints, state: TrainState) -> None:
    """Save a state as the checkpoint of its step. Every process must call this function.

    Args:
      store: the open checkpoints of the workdir.
      state: the state to save.

    Raises:
      ValueError: the folder was deleted, the disk is full, or the previous save failed.
    """
    store.save(int(state.step), train_state.stored(state))


def read(store: Checkpoints, config: ConfigDict, step: int | None = None) -> TrainState | None:
    """Read the train state of a checkpoint.

    Args:
      store: the open checkpoints of the workdir.
      config: the full config, which determines the shapes and dtypes of the state.
      step: step of the checkpoint. None: the newest checkpoint that is not damaged.

    Returns:
      The state, as arrays on the host, or None if there are no checkpoints.

    Raises:
      ValueError: the checkpoint of the given step is damaged, or step is None and all checkpoints are damaged.
    """
    template = train_state.abstract(config)
    stored = store.restore(train_state.stored(template), step, step_of=lambda tree: int(tree.step))
    return None if stored is None else train_state.from_stored(stored, template)


def restore(config: ConfigDict, workdir: Path, *, step: int | None = None, argument: str = "workdir") -> TrainState:
    """Read the train state of a run without writing to its workdir.

    The caller must have checked that the run was trained with this config.

    Args:
      config: the full config.
      workdir: the folder of the run.
      step: step of the checkpoint. None: the newest checkpoint that is not damaged.
      argument: name under which the caller received the workdir. Error messages begin with it.

    Returns:
      The state, as arrays on the host.

    Raises:
      ValueError: the workdir has no checkpoint, none of that step, or the checkpoint is damaged.
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
    """Create a workdir whose first checkpoint is the given state. Training in the workdir continues from this state.

    Args:
      config: the full config.
      workdir: the folder to create.
      state: the state to save.
      check: called once the workdir is locked, before anything is written; see `workdirs.claim`.

    Raises:
      ValueError: the workdir already has checkpoints, cannot be written to, or check raised ValueError.
    """
    if workdirs.has_checkpoints(workdir):
        raise ValueError(f"workdir: found {storage.shown(workdir)} with checkpoints, expected a new folder")
    with workdirs.claim(workdir, config.to_dict(), check=check), Checkpoints(workdir, config.checkpoint.keep) as store:
        save(store, state)
