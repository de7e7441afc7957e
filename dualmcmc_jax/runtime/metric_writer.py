"""Output of training metrics to metrics.jsonl, TensorBoard, Weights & Biases and a progress bar."""

import contextlib
import importlib.util
import json
import logging
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.runtime import storage, wandb_run
from dualmcmc_jax.runtime.workdirs import replace

_log = logging.getLogger(__name__)


def rows(workdir: Path) -> list[dict[str, float]]:
    """Return the rows of metrics.jsonl. Without this file there are no rows.

    Lines that are not rows of metrics are left out, with a warning. The last line may be incomplete, because the
    training process may be writing it at this moment.
    """
    return [row for row, _ in _read(workdir, warn=True)]


def _read(workdir: Path, *, warn: bool) -> list[tuple[dict[str, float], str]]:
    """Return the rows of metrics.jsonl, and the line of each row. If `warn` is True, warn about other lines."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    warning = _log.warning if warn else _log.debug
    if not path.is_file():
        warning("%s: found something other than a file, so the history of training is left out", storage.shown(path))
        return []
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    parsed = [(_row(line), line) for line in lines]
    if num_invalid := sum(row is None and line.endswith("\n") for row, line in parsed):
        warning("%s: left out %d lines that are not rows of metrics", storage.shown(path), num_invalid)
    return [(row, line) for row, line in parsed if row is not None]


def last_step(workdir: Path) -> float:
    """Return the last step of which metrics.jsonl has a row, or 0 without rows."""
    return max((row["step"] for row, _ in _read(workdir, warn=False)), default=0)


def has_evaluation(workdir: Path, step: int) -> bool:
    """Return whether metrics.jsonl has a row of a light evaluation of a step."""
    others = ("steps_per_second", "rollbacks")  # names in rows of training metrics and of rollbacks
    return any(row["step"] == step and not any(name in row for name in others) for row, _ in _read(workdir, warn=False))


def check(workdir: Path) -> None:
    """Raise ValueError if rows of metrics cannot be written because metrics.jsonl is something other than a file."""
    path = workdir / "metrics.jsonl"
    if path.exists() and not path.is_file():
        found = "something other than a file"
        raise ValueError(f"{storage.shown(path)}: found {found}, expected the metrics of a run; choose another workdir")


class MetricsWriter:
    """The writer of the metrics of one run, a context manager. Only process 0 writes.

    If a run was interrupted after its last checkpoint, metrics.jsonl has rows beyond `step`. They are deleted, because
    the resumed run writes them again. Invalid lines are deleted too, with a warning.

    Args:
      workdir: the folder of the run.
      step: number of updates made so far.
      num_steps: number of updates in total, for the progress bar.
      every: number of updates between rows of metrics.
      wandb: the config of the run, to write to Weights & Biases as well; None: do not.
    """

    def __init__(self, workdir: Path, *, step: int, num_steps: int, every: int, wandb: dict[str, Any] | None = None):
        self._leads = jax.process_index() == 0
        self._every = every
        if self._leads:
            path = workdir / "metrics.jsonl"
            kept = (line for row, line in _read(workdir, warn=True) if row["step"] <= step)
            replace(path, "".join(line.rstrip("\n") + "\n" for line in kept))
            self._file = path.open("a", buffering=1)
            self._tensorboard = _tensorboard_writer(workdir)
            self._wandb = wandb_run.start(workdir, wandb) if wandb is not None else None
        if self._leads and step:
            _log.info("resuming at step %d", step)
        seconds = 0.1 if sys.stderr.isatty() else 10  # between redraws of the bar
        disabled = {} if self._leads else {"disable": True}  # {"disable": False} would override TQDM_DISABLE
        self._bar = tqdm(total=num_steps, initial=step, unit="step", mininterval=seconds, **disabled)
        self._clock = time.perf_counter(), step

    def finished(self, step: int, scalars: dict[str, jax.Array]) -> None:
        """Wait until a step is finished. Write a row of metrics if the step is the last one or a multiple of `every`.

        The row also contains `steps_per_second`, the rate since the previous row.
        """
        jax.block_until_ready(scalars)
        if not self._leads:
            return
        self._bar.update(1)
        if step % self._every and step != self._bar.total:
            return
        row = {name: float(value) for name, value in jax.device_get(scalars).items()}
        now = time.perf_counter()
        (before, first), self._clock = self._clock, (now, step)
        row["steps_per_second"] = (step - first) / (now - before)
        self.scalars(step, row)
        shown = ("revision_mse", "posterior_mse_end", "energy_loss", "elbo_loss")
        self._bar.set_postfix({name: f"{row[name]:.3g}" for name in shown if name in row}, refresh=False)

    def scalars(self, step: int, row: dict[str, float]) -> None:
        """Write a row of metrics, {name: value}."""
        if self._leads and row:
            if not os.fstat(self._file.fileno()).st_nlink:
                raise ValueError(f"{self._file.name}: found no such file, expected the metrics of this run")
            try:
                self._file.write(json.dumps({"step": step} | row) + "\n")
            except OSError as error:
                raise ValueError(f"{self._file.name}: found {error.strerror}, expected a file to write to") from error
            self._write_events("scalars", step, row)

    def images(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Write images to TensorBoard and to Weights & Biases: {name: uint8 [H, W, 3]}."""
        if self._leads:
            self._write_events("images", step, pictures)

    def _write_events(self, method: str, step: int, values: dict) -> None:
        """Call a method of the other writers. If one of them cannot write, log a warning and go on without it."""
        if self._tensorboard:
            try:
                getattr(self._tensorboard, method)(step, values)
            except OSError as error:
                _log.warning("TensorBoard events are no longer written: %s", error.strerror)
                self._tensorboard = None
        if self._wandb:
            getattr(self._wandb, method)(step, values)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        if self._leads:
            with contextlib.suppress(OSError):  # no row is lost: each was flushed when it was written
                self._file.close()
            for writer in (self._tensorboard, self._wandb):
                if writer:
                    writer.close()


def _row(line: str) -> dict[str, float] | None:
    """Return a line of metrics.jsonl as {name: number}, or None if the line is not a row of metrics."""
    try:
        row = json.loads(line)
        is_finite = {name: math.isfinite(value) for name, value in row.items()}
        return row if is_finite["step"] else None
    except (ValueError, RecursionError, OverflowError, TypeError, AttributeError, KeyError):
        return None


def _tensorboard_command() -> str:
    """Return the command that starts TensorBoard. A virtual environment need not be on the PATH."""
    python = Path(sys.executable)
    python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    beside = python.with_name("tensorboard")
    return str(beside) if beside.exists() else f"{python} -m tensorboard.main"


def _tensorboard_writer(workdir: Path):
    """Return a writer of TensorBoard events, or None with a message if its package is missing or does not work."""
    if not importlib.util.find_spec("tensorboard"):
        _log.info("TensorBoard events are not written: install tensorboard to enable them")
        return None
    try:
        from dualmcmc_jax.runtime.tensorboard_events import EventWriter

        writer = EventWriter(workdir / "tensorboard")
    except Exception as error:  # a broken package raises anything: ImportError, AttributeError, TypeError, ...
        problem = f"{type(error).__name__}: {first_line(error)}"
        _log.warning("TensorBoard events are not written: %s", problem)
        return None
    _log.info("to view the metrics: %s --logdir=%s", _tensorboard_command(), storage.shown(workdir))
    return writer
