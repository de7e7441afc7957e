"""A workdir's checkpoints."""

import contextlib
import itertools
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.runtime import storage, workdirs
from dualmcmc_jax.runtime.checksums import Damaged, check_record, checksums
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.state import TrainState

_log = logging.getLogger(__name__)


def restore(config: ConfigDict, workdir: Path, *, step: int | None = None) -> TrainState:
    """The state of a workdir after `step`, or its newest, for use; writes nothing.

    Raises:
      ValueError: the workdir holds a run of another config, or no such checkpoint.
    """
    workdirs.check(workdir, config)
    found = None
    if (storage.home(workdir) / "checkpoints").is_dir():
        with Checkpoints(workdir, read_only=True) as store:
            if step is not None and step not in store.steps():
                raise ValueError(f"--step: found {step}, expected one of {', '.join(map(str, store.steps()))}")
            found = store.restore(train_state.abstract(config), step)
    if found is None:
        raise ValueError(
            f"--workdir: found no checkpoint in {storage.shown(workdir)}/checkpoints, expected one: train first"
        )
    return found


def begin(config: ConfigDict, workdir: Path, state: TrainState) -> None:
    """Makes a workdir of a run that goes on from a state; raises ValueError if there is a run in it already."""
    if list((storage.home(workdir) / "checkpoints").glob("[0-9]*")):
        raise ValueError(f"--workdir: found {storage.shown(workdir)} with checkpoints, expected a new folder")
    with workdirs.claim(workdir, config), Checkpoints(workdir, config.checkpoint.keep) as store:
        store.save(state)


class Checkpoints:
    """The checkpoints of a workdir, saved asynchronously; a context manager that waits for the last one."""

    def __init__(self, workdir: Path, keep: int | None = None, read_only: bool = False):
        reading = {"read_only": True, "save_interval_steps": 0, "create": False} if read_only else {}
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, **reading)
        self._folder = storage.home(workdir) / "checkpoints"
        handlers = {"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        self._read_only = read_only

    def save(self, state: TrainState) -> None:
        """Saves the state under its own step; every process calls it.

        Raises:
          ValueError: the folder is gone, has no space left, or the save before this one failed.
        """
        host_state = train_state.stored(jax.device_get(state))
        self.wait()
        self._check_space(sum(leaf.nbytes for leaf in jax.tree.leaves(host_state)))
        record = {"checksums": checksums(host_state)}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(host_state), record=ocp.args.JsonSave(record))
        with self._saying_what_failed():
            self._manager.save(int(host_state.step), args=arguments)
        _log.debug("saving step %d to %s", host_state.step, self._folder)

    def wait(self) -> None:
        """Until the last save is complete; raises ValueError if it failed."""
        with self._saying_what_failed():
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """After how many updates there are checkpoints."""
        return sorted(self._manager.all_steps())

    def restore(self, like: TrainState, step: int | None = None) -> TrainState | None:
        """The state after `step`, or the newest, as host arrays shaped like `like`; None if there is none.

        A newest checkpoint that is damaged is named, renamed so that it is none any more (unless read_only), and the
        one before it is taken.

        Raises:
          ValueError: that of `step` is damaged, or all are.
        """
        steps = self.steps() if step is None else [step]
        damaged = {}
        for candidate in reversed(steps):
            try:
                found = self._read(candidate, like)
            except MemoryError:
                raise
            except Exception as error:  # damage shows as any of a dozen kinds of error in Orbax and what it stands on
                if storage.is_remote(self._folder) and not isinstance(error, Damaged):  # perhaps only for now
                    found = f"{self._folder / str(candidate)}: found it out of reach or damaged ({first_line(error)})"
                    raise ValueError(f"{found}, expected a whole checkpoint; try again, or remove it") from error
                damaged[candidate] = (
                    f"{self._folder / str(candidate)}: found a damaged checkpoint ({first_line(error)})"
                )
                continue
            if len({int(n) for n in np.ravel(multihost_utils.process_allgather(np.int32(candidate)))}) > 1:
                raise ValueError(f"{self._folder}: found processes that read different checkpoints, expected the same")
            for bad, what in damaged.items():
                _log.warning("%s; going on from step %d", what, candidate)
                if not self._read_only:
                    self._set_aside(bad)
            return found
        if damaged:
            raise ValueError(f"{damaged[steps[-1]]}, expected a whole one; no other is left")
        return None

    def _read(self, step: int, like: TrainState) -> TrainState:
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), train_state.stored(like))
        self._check_size(step, sum(leaf.nbytes for leaf in jax.tree.leaves(target)))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target), record=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=arguments)
        check_record(found.record, checksums(found.state))
        if int(found.state.step) != step:
            raise Damaged(f"it is of step {int(found.state.step)}")
        return like._replace(**found.state._asdict())

    def _check_space(self, num_bytes: int) -> None:
        """Orbax would notice later, with several tracebacks, or make the folder anew."""
        if storage.is_remote(self._folder):
            return
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise ValueError(f"{self._folder}: found no folder any more, expected that of the checkpoints") from error
        needed = 1.1 * num_bytes + 1e6
        if free < needed:
            found = f"{free / 1e6:.1f} MB free, expected {needed / 1e6:.1f} MB for a checkpoint"
            raise ValueError(f"{self._folder}: found {found}; {self._what_is_left()}")

    @contextlib.contextmanager
    def _saying_what_failed(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # as with damage, any of a dozen kinds
            raise ValueError(
                f"{self._folder}: found a save that failed ({first_line(error)}); {self._what_is_left()}"
            ) from error

    def _what_is_left(self) -> str:
        is_whole = lambda path: not storage.is_remote(path) or (path / "commit_success.txt").exists()  # Orbax's mark
        whole = sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdigit() and is_whole(path))
        return f"the newest checkpoint is that of step {whole[-1]}" if whole else "there is no checkpoint yet"

    def _check_size(self, step: int, expected: int) -> None:
        """Orbax reads arrays, and pieces of them, of any size that a few bytes claim, before it compares shapes."""
        arrays = jax.tree.leaves(self._manager.item_metadata(step).state.tree)
        shapes = [max(array.shape, array.storage.chunk_shape, key=math.prod) for array in arrays]
        found = sum(math.prod(shape) * array.dtype.itemsize for shape, array in zip(shapes, arrays, strict=True))
        if found > 1.5 * expected + 1e6:
            raise Damaged(f"{found / 1e6:.0f} MB of arrays, expected {expected / 1e6:.0f} MB")

    def _set_aside(self, step: int) -> None:
        """Renames a checkpoint to damaged-STEP-1, or the next number that is free."""
        multihost_utils.sync_global_devices(f"damaged {step}")
        if jax.process_index() == 0:
            names = (self._folder / f"damaged-{step}-{i}" for i in itertools.count(1))
            (self._folder / str(step)).rename(next(name for name in names if not name.exists()))
        multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.wait()
        finally:
            self._manager.close()
