"""Checkpoints of trees of arrays, saved asynchronously and verified by checksums."""

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
from dualmcmc_jax.runtime import memory, storage
from dualmcmc_jax.runtime.checksums import Damaged, check_record, checksums

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a workdir. As a context manager, it waits for the last save on exit.

    Args:
      workdir: the folder of the run. The checkpoints are in its subfolder checkpoints/, or in checkpoints/ in the
        bucket of a gs:// workdir.
      keep: number of newest checkpoints to keep; None: all.
      read_only: whether to write nothing. If True, a missing folder is not created either.
    """

    def __init__(self, workdir: Path, keep: int | None = None, read_only: bool = False):
        read_options = {"read_only": True, "save_interval_steps": 0, "create": False} if read_only else {}
        self._unsaved = None  # step and arguments of a save that is not known to be complete
        complete = ocp.options.AsyncOptions(post_finalization_callback=self._forget_unsaved)
        self._folder = storage.home(workdir) / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Newest(self._folder, keep), async_options=complete, **read_options
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
        self._manager = _again_if_missing(
            lambda: ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        )
        self._read_only = read_only

    def save(self, step: int, tree: Any) -> None:
        """Start to save a tree of arrays in the background. Every process must call this method.

        Args:
          step: the step that names the checkpoint.
          tree: the arrays to save.

        Raises:
          ValueError: the folder is missing or has too little space, or the previous save failed.
        """
        tree = jax.device_get(tree)
        self.wait()
        self._check_space(_num_bytes(tree))
        record = {"checksums": checksums(tree)}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
        self._unsaved = step, arguments
        with self._save_errors():
            self._again_if_timed_out(lambda: self._manager.save(step, args=arguments))
        _log.debug("saving step %d to %s", step, self._folder)

    def wait(self) -> None:
        """Wait until the last save is complete. Raise ValueError if the save failed."""
        with self._save_errors():
            self._again_if_timed_out(self._manager.wait_until_finished)

    def _again_if_timed_out(self, call: Callable[[], Any]) -> None:
        """Wait for a save. If it times out, start it once more and wait for it.

        Orbax measures its timeouts by the wall clock, so they end when the clock is set forward. With several processes
        nothing is repeated, because the other processes would not take part.
        """
        try:
            call()
        except TimeoutError as error:
            if self._unsaved is None or jax.process_count() > 1:
                raise
            step, arguments = self._unsaved
            _log.warning("saving step %d timed out (%s); saving it again", step, _brief(error))
            self._manager.save(step, args=arguments, force=True)
            self._manager.wait_until_finished()

    def _forget_unsaved(self) -> None:
        """Free the arrays of the last save."""
        self._unsaved = None

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints in ascending order."""
        return sorted(self._manager.all_steps())

    def restore(
        self, template: Any, step: int | None = None, *, step_of: Callable[[Any], int] | None = None
    ) -> Any | None:
        """Restore a checkpoint as a tree of host arrays.

        If the newest checkpoint is damaged, restore the checkpoint before it and log a warning. Unless read_only is
        True, rename the damaged checkpoint, so that no later call tries to restore it. If read_only is True, another
        process may replace the checkpoint while it is read. In this case the newer one is restored.

        Args:
          template: a tree with the shapes and dtypes that were saved.
          step: the step to restore; None: the newest intact checkpoint.
          step_of: tree -> the step stored in the tree. A checkpoint whose stored step differs from its name is damaged.

        Returns:
          The restored tree, or None if there are no checkpoints.

        Raises:
          ValueError: the checkpoint of the given step, or every checkpoint, is damaged or does not fit the template.
        """
        steps = self.steps() if step is None else [step]
        problems = {}  # {step: (what was found, what was expected)}
        for candidate in reversed(steps):
            try:
                tree = self._read(candidate, template)
                if step_of and step_of(tree) != candidate:
                    raise Damaged(f"it holds step {step_of(tree)}")
            except Exception as error:  # Orbax and its dependencies raise many types of errors for damaged files
                if memory.ran_out(error):
                    raise
                if step is None and self._read_only and self._has_newer(steps[-1]):
                    return self.restore(template, step_of=step_of)
                known = isinstance(error, Damaged | Misfit)
                if storage.is_remote(self._folder) and not known:  # may be temporary
                    problem = f"found an unreachable or damaged checkpoint ({_brief(error)})"
                    raise ValueError(
                        f"{self._folder / str(candidate)}: {problem}, expected an intact one; try again, or remove it"
                    ) from error
                problems[candidate] = (
                    (error.found, error.expected)
                    if isinstance(error, Misfit)
                    else (f"a damaged checkpoint ({_brief(error)})", "an intact one")
                )
                continue
            if len({int(n) for n in np.ravel(multihost_utils.process_allgather(np.int32(candidate)))}) > 1:
                raise ValueError(
                    f"{self._folder}: found processes that restored different steps, expected the same step"
                )
            for bad_step, (found, _) in problems.items():
                path = self._folder / str(bad_step)
                _log.warning("%s: found %s; using the checkpoint of step %d instead", path, found, candidate)
                if not self._read_only:
                    self._rename_damaged(bad_step)
            return tree
        if problems:
            found, expected = problems[steps[-1]]
            alone = "" if step is not None else ", and no other checkpoint that can be used"
            raise ValueError(f"{self._folder / str(steps[-1])}: found {found}{alone}, expected {expected}")
        return None

    def _has_newer(self, step: int) -> bool:
        """Return whether another process has saved a checkpoint of a later step."""
        _again_if_missing(self._manager.reload)
        return max(self.steps(), default=step) > step

    def _read(self, step: int, template: Any) -> Any:
        self._check_arrays(step, template)
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target), record=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=arguments)
        check_record(restored.record, checksums(restored.state))
        return restored.state

    def _check_space(self, num_bytes: int) -> None:
        """Raise ValueError if the folder is missing or has too little space.

        Orbax would create a missing folder again. It would detect a full disk only while saving, and print tracebacks.
        """
        if storage.is_remote(self._folder):
            return
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise ValueError(f"{self._folder}: found no such folder, expected the folder of the checkpoints") from error
        needed = 1.1 * num_bytes + 1e6
        if free < needed:
            problem = f"found {free / 1e6:.1f} MB free, expected {needed / 1e6:.1f} MB for a checkpoint"
            raise ValueError(f"{self._folder}: {problem}; {self._newest_checkpoint()}")

    @contextlib.contextmanager
    def _save_errors(self) -> Iterator[None]:
        """Turn an error in saving into a ValueError of one line."""
        try:
            yield
        except Exception as error:  # many types of errors, as in `restore`
            if memory.ran_out(error):
                raise
            raise ValueError(
                f"{self._folder}: saving a checkpoint failed ({_brief(error)}); {self._newest_checkpoint()}"
            ) from error

    def _newest_checkpoint(self) -> str:
        """Return a phrase that names the step of the newest complete checkpoint, for error messages."""
        # In a bucket, Orbax writes this file when a checkpoint is complete.
        is_complete = lambda path: not storage.is_remote(path) or (path / "commit_success.txt").exists()
        steps = sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdigit() and is_complete(path))
        return f"the newest checkpoint has step {steps[-1]}" if steps else "there is no checkpoint yet"

    def _check_arrays(self, step: int, target: Any) -> None:
        """Raise Misfit if the stored arrays have other names, shapes or dtypes, and Damaged if they are too large.

        Orbax would read them before it compares their shapes.
        """
        arrays = self._manager.item_metadata(step).state.tree
        stored, expected = _descriptions(arrays), _descriptions(target)
        for name in sorted(stored.keys() | expected.keys()):
            if stored.get(name) != expected.get(name):
                raise Misfit(name, stored.get(name), expected.get(name))
        shapes = [array.storage.chunk_shape for array in jax.tree.leaves(arrays)]
        size = sum(
            math.prod(shape) * x.dtype.itemsize for shape, x in zip(shapes, jax.tree.leaves(arrays), strict=True)
        )
        if size > 1.5 * _num_bytes(target) + 1e6:
            raise Damaged(f"{size / 1e6:.0f} MB of arrays, expected {_num_bytes(target) / 1e6:.0f} MB")

    def _rename_damaged(self, step: int) -> None:
        """Rename a checkpoint to damaged-STEP-N, where N is the first free number from 1."""
        multihost_utils.sync_global_devices(f"damaged {step}")
        if jax.process_index() == 0:
            names = (self._folder / f"damaged-{step}-{i}" for i in itertools.count(1))
            (self._folder / str(step)).rename(next(name for name in names if not name.exists()))
        multihost_utils.sync_global_devices(f"renamed {step}")
        self._manager.reload()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.wait()
        finally:
            self._manager.close()


class _Newest(ocp.checkpoint_managers.PreservationPolicy):
    """The rule which checkpoints to keep: the newest `keep` (None: all), and every link to a folder.

    Orbax cannot remove a link, and what it points to belongs to someone else.
    """

    def __init__(self, folder, keep: int | None):
        self._folder, self._keep = folder, keep

    def should_preserve(self, checkpoints, *, context):
        steps = [checkpoint.step for checkpoint in checkpoints]
        own = [step for step in steps if not self._is_link(step)]
        old = own[: -self._keep] if self._keep else []
        return [step not in old for step in steps]

    def _is_link(self, step: int) -> bool:
        return not storage.is_remote(self._folder) and (self._folder / str(step)).is_symlink()


class Misfit(ValueError):
    """Raised if a checkpoint has an array that differs from that of the template in shape or dtype, or is missing.

    Args:
      name: the name of the array.
      found: its dtype and shape in the checkpoint; None: the checkpoint has no such array.
      expected: its dtype and shape in the template; None: the template has no such array.
    """

    def __init__(self, name: str, found: str | None, expected: str | None):
        self.found = f"parameters of another model, {name}: {found or 'missing'}"
        self.expected = f"{expected or 'no such array'}, as this config has it"
        super().__init__(f"found {self.found}, expected {self.expected}")


def _descriptions(tree: Any) -> dict[str, str]:
    """Return {name of the array: its dtype and shape}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")
    return {name(path): f"{leaf.dtype} {leaf.shape}" for path, leaf in leaves}


def _again_if_missing(call: Callable[[], Any]) -> Any:
    """Call a function again if a checkpoint vanishes while it lists the folder, because another process removes it."""
    for _ in range(20):
        with contextlib.suppress(FileNotFoundError):
            return call()
    return call()


def _brief(error: Exception) -> str:
    """Return the beginning of an error's message. Messages of Orbax may contain long JSON."""
    line = first_line(error)
    return line if len(line) <= 200 else f"{line[:200]} [...]"


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
