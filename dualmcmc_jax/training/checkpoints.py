"""A workdir's config and checkpoints."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.state import TrainState

FREE = ("train.num_steps", "train.unroll", "log", "checkpoint", "evaluation")
"""Fields that may change from one start of a run to the next: they leave the mathematics of a step alone."""


def claim(workdir: Path, config: ConfigDict) -> None:
    """Makes the workdir belong to this config, and writes it to config.json.

    Raises:
      ValueError: the workdir holds a run of another config.
    """
    check(workdir, config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            replace(workdir / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
    except OSError as error:
        raise ValueError(f"--workdir: found {workdir} ({error.strerror}), expected a folder to write to") from error


def replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    os.replace(temporary, path)


def check(workdir: Path, config: ConfigDict) -> None:
    """Raises ValueError if the workdir holds a run whose config differs in more than the free fields."""
    path = workdir / "config.json"
    if not path.exists():
        return
    try:
        stored = _flat(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: found {error}, expected the config of a run; choose another --workdir") from error
    given = _flat(json.loads(json.dumps(config.to_dict())))
    differing = [
        f"{name} is {stored.get(name)!r} there and {given.get(name)!r} here"
        for name in sorted(stored.keys() | given.keys())
        if stored.get(name) != given.get(name) and not any(f"{name}.".startswith(f"{free}.") for free in FREE)
    ]
    if differing:
        raise ValueError(f"{path}: a run of another config: {'; '.join(differing)}; choose another --workdir")


def restore(config: ConfigDict, workdir: Path, *, step: int | None = None) -> TrainState:
    """The state of a workdir after `step`, or its newest, for use; writes nothing.

    Raises:
      ValueError: the workdir holds a run of another config, or no such checkpoint.
    """
    check(workdir, config)
    found = None
    if (workdir / "checkpoints").is_dir():
        with Checkpoints(workdir, read_only=True) as store:
            if step is not None and step not in store.steps():
                raise ValueError(f"--step: found {step}, expected one of {', '.join(map(str, store.steps()))}")
            found = store.restore(train_state.abstract(config), step)
    if found is None:
        raise ValueError(f"--workdir: found no checkpoint in {workdir / 'checkpoints'}, expected one: train first")
    return found


class Checkpoints:
    """The checkpoints of a workdir, saved asynchronously; a context manager that waits for the last one."""

    def __init__(self, workdir: Path, keep: int | None = None, read_only: bool = False):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, read_only=read_only)
        self._manager = ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)

    def save(self, state: TrainState) -> None:
        """Saves the state under its own step; every process calls it."""
        host_state = jax.device_get(state)
        self._manager.save(int(host_state.step), args=ocp.args.StandardSave(host_state))

    def steps(self) -> list[int]:
        """After how many updates there are checkpoints."""
        return sorted(self._manager.all_steps())

    def restore(self, like: TrainState, step: int | None = None) -> TrainState | None:
        """The state after `step`, or the newest, as host arrays shaped like `like`; None if there is none."""
        step = self._manager.latest_step() if step is None else step
        if step is None:
            return None
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(target))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.wait_until_finished()
        self._manager.close()


def listing(config: ConfigDict) -> str:
    """The config as lines of the flags that set it."""
    return "\n".join(f"--config.{name}={value!r}" for name, value in _flat(config.to_dict()).items())


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
