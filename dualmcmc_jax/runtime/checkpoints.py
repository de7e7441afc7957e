"""Checkpoints of trees of arrays: saved asynchronously, with checksums, and restored from the newest whole one."""

import contextlib
import itertools
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.runtime import storage
from dualmcmc_jax.runtime.checksums import Damaged, check_record, checksums

_log = logging.getLogger(__name__)


def exist(workdir: Path) -> bool:
    """Return whether a workdir has checkpoints, whole or not."""
    return any((storage.home(workdir) / "checkpoints").glob("[0-9]*"))


class Checkpoints:
    """The checkpoints of a workdir; a context manager that waits for the last save.

    Args:
      workdir: the checkpoints are in its folder checkpoints/, or in that of its bucket.
      keep: number of newest checkpoints kept; None: all.
      read_only: write nothing, not even a folder.
    """

    def __init__(self, workdir: Path, keep: int | None = None, read_only: bool = False):
        reading = {"read_only": True, "save_interval_steps": 0, "create": False} if read_only else {}
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, **reading)
        self._folder = storage.home(workdir) / "checkpoints"
        handlers = {"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        self._read_only = read_only

    def save(self, step: int, tree: Any) -> None:
        """Save a tree of arrays under a step. Every process calls it, and the save goes on in the background.

        Raises:
          ValueError: the folder is gone, has no space left, or the save before this one failed.
        """
        tree = jax.device_get(tree)
        self.wait()
        self._check_space(_num_bytes(tree))
        record = {"checksums": checksums(tree)}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
        with self._saying_what_failed():
            self._manager.save(step, args=arguments)
        _log.debug("saving step %d to %s", step, self._folder)

    def wait(self) -> None:
        """Wait until the last save is complete; raise ValueError if it failed."""
        with self._saying_what_failed():
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def restore(
        self, template: Any, step: int | None = None, *, step_of: Callable[[Any], int] | None = None
    ) -> Any | None:
        """Restore the tree of a step as host arrays; None if there are no checkpoints.

        A damaged checkpoint is named in a warning, renamed so that nothing takes it for one again (unless read_only),
        and the one before it is restored.

        Args:
          template: a tree of the shapes and dtypes that were saved.
          step: default: the newest.
          step_of: reads from a tree the step that it was saved under; a checkpoint of another step counts as damaged.

        Raises:
          ValueError: the checkpoint of the given step is damaged, or all are.
        """
        steps = self.steps() if step is None else [step]
        damaged = {}
        for candidate in reversed(steps):
            try:
                tree = self._read(candidate, template)
                if step_of and step_of(tree) != candidate:
                    raise Damaged(f"it is of step {step_of(tree)}")
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
            return tree
        if damaged:
            raise ValueError(f"{damaged[steps[-1]]}, expected a whole one; no other is left")
        return None

    def _read(self, step: int, template: Any) -> Any:
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
        self._check_size(step, _num_bytes(target))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target), record=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=arguments)
        check_record(restored.record, checksums(restored.state))
        return restored.state

    def _check_space(self, num_bytes: int) -> None:
        """Raise ValueError if a checkpoint does not fit: Orbax notices late, with tracebacks, or makes a new folder."""
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
        """Raise Damaged if the arrays claim to be too large: Orbax would read them before it compares shapes."""
        arrays = jax.tree.leaves(self._manager.item_metadata(step).state.tree)
        shapes = [max(array.shape, array.storage.chunk_shape, key=math.prod) for array in arrays]
        found = sum(math.prod(shape) * array.dtype.itemsize for shape, array in zip(shapes, arrays, strict=True))
        if found > 1.5 * expected + 1e6:
            raise Damaged(f"{found / 1e6:.0f} MB of arrays, expected {expected / 1e6:.0f} MB")

    def _set_aside(self, step: int) -> None:
        """Rename a checkpoint to damaged-STEP-1, or the next number that is free."""
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


def _num_bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
