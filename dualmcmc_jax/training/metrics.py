"""Where the numbers of a run go: metrics.jsonl, TensorBoard and a progress bar."""

import importlib.util
import json
import logging
import os
import time
from pathlib import Path

from tqdm import tqdm


class MetricsWriter:
    """Writes rows of scalars of one run; a context manager.

    Rows after `step`, left by a run that was cut off later, are dropped: they will be written again.
    """

    def __init__(self, workdir: Path, *, step: int, num_steps: int):
        path = workdir / "metrics.jsonl"
        rows = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(row for row in rows if json.loads(row)["step"] <= step))
        self._file = path.open("a", buffering=1)
        self._tensorboard = _tensorboard_writer(workdir)
        self._bar = tqdm(total=num_steps, initial=step, unit="step", dynamic_ncols=True)
        self._clock = time.perf_counter(), step

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """One row; adds `steps_per_second` since the last one."""
        now = time.perf_counter()
        elapsed, steps = now - self._clock[0], step - self._clock[1]
        self._clock = now, step
        scalars = scalars | {"steps_per_second": steps / elapsed}
        self._file.write(json.dumps({"step": step} | scalars) + "\n")
        if self._tensorboard:
            self._tensorboard.write_scalars(step, scalars)
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix({name: f"{scalars[name]:.3g}" for name in ("revision_mse", "posterior_mse_end")})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        self._file.close()
        if self._tensorboard:
            self._tensorboard.close()


def _tensorboard_writer(workdir: Path):
    if not all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard", "clu")):
        logging.info("TensorBoard events are not written: tensorflow, tensorboard and clu are not all installed")
        return None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf
    from clu import metric_writers

    tf.config.set_visible_devices([], "GPU")
    return metric_writers.SummaryWriter(str(workdir / "tensorboard"))
