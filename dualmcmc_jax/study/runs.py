"""The runs of a study: each a folder, a training and an evaluation in processes of their own."""

import contextlib
import fcntl
import glob
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from ml_collections import ConfigDict
from tqdm import tqdm

from dualmcmc_jax.configs import validation
from dualmcmc_jax.training.workdirs import replace

EXIT_CODE = 75
"""Of a study that was asked to stop, as of a run."""
PILOT_STEPS, PILOT_EVERY = 60, 10
_POLL_SECONDS = 1.0


class Stopped(Exception):
    """The study was asked to stop; what its runs have done is saved."""

    def __init__(self):
        super().__init__("stopped; the same command goes on from there")


class Settings(NamedTuple):
    """Attributes:
    workdir: of the study, with a folder for each run.
    seeds: of each variant's runs.
    num_jobs: runs at a time.
    seconds: of each training, compilation aside; 0: train.num_steps of the config.
    flags: more flags of the evaluation.
    """

    workdir: Path
    seeds: range
    num_jobs: int
    seconds: float
    flags: tuple[str, ...]


class Result(NamedTuple):
    """What became of a run: its metrics, or why there are none."""

    seed: int
    metrics: dict[str, float]
    problem: str = ""


def run(variants: dict[str, ConfigDict], settings: Settings) -> dict[str, list[Result]]:
    """Does what is left of a study, and returns all its results by variant.

    Raises:
      Stopped: by SIGTERM or SIGINT, which its processes were told.
    """
    with _Jobs(settings.num_jobs) as jobs:
        if settings.seconds:
            rates = jobs.map(lambda name: _pilot(jobs, settings.workdir / _slug(name), variants[name]), variants)
            variants = {
                name: _for_seconds(config, settings.seconds, rate)
                for (name, config), rate in zip(variants.items(), rates, strict=True)
            }
        todo = [(name, seed) for seed in settings.seeds for name in variants]
        with tqdm(total=len(todo), unit="run") as bar:

            def one(item):
                name, seed = item
                config = variants[name].copy_and_resolve_references()
                config.train.seed = seed
                found = _train_and_evaluate(jobs, settings.workdir / _slug(name) / str(seed), config, settings.flags)
                bar.set_postfix_str(f"{name}, seed {seed}", refresh=False)
                bar.update(1)
                return found

            found = jobs.map(one, todo)
    return {name: [result for (of, _), result in zip(todo, found, strict=True) if of == name] for name in variants}


def gpus() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]


def flags_of(config: ConfigDict) -> list[str]:
    """The flags of `dualmcmc_jax.main` that make this config."""
    values = validation.fields(config)
    return ["--config=default", *(f"--config.{name}={value}" for name, value in values)]


def _train_and_evaluate(jobs, workdir: Path, config: ConfigDict, more: tuple[str, ...]) -> Result:
    """The result of one run; waits while another process has it."""
    seed, num_steps = config.train.seed, config.train.num_steps
    out = workdir / "evaluation" / str(num_steps)
    with jobs.claim(workdir):
        config.evaluation.every, config.log.images_every = 0, num_steps
        flags = [*flags_of(config), f"--workdir={workdir}"]
        if not (out / "metrics.json").exists():
            problem = jobs.main(workdir, *flags) or jobs.main(
                workdir, *flags, "--mode=evaluate", f"--seed={seed}", f"--out={out}", *more
            )
            if problem:
                return Result(seed, {}, problem)
    metrics = json.loads((out / "metrics.json").read_text())
    return Result(seed, metrics | {"update_seconds": 1 / _rate(workdir), "num_steps": num_steps})


def _pilot(jobs, folder: Path, config: ConfigDict) -> float:
    """Updates a second of a config, measured once and kept in its folder."""
    kept = folder / "steps_per_second"
    with jobs.claim(folder / "pilot"):
        if not kept.exists():
            config = config.copy_and_resolve_references()
            config.train.num_steps = PILOT_STEPS
            config.log.update(every=PILOT_EVERY, images_every=10**9)
            config.evaluation.every = 0
            if problem := jobs.main(folder / "pilot", *flags_of(config), f"--workdir={folder / 'pilot'}"):
                raise ValueError(f"{folder}: found {problem}, expected a variant that can be trained")
            replace(kept, f"{_rate(folder / 'pilot')}\n")
    return float(kept.read_text())


def _for_seconds(config: ConfigDict, seconds: float, rate: float) -> ConfigDict:
    """As many updates as so many seconds allow; by their end the learning rates fall as far as by the config's."""
    config = config.copy_and_resolve_references()
    num_steps = max(1, round(seconds * rate))
    config.optimizer.decay **= config.train.num_steps / num_steps
    config.train.num_steps = num_steps
    config.checkpoint.every = max(1, num_steps // 5)
    config.log.every = max(1, num_steps // 50)
    return config


def _rate(workdir: Path) -> float:
    """The median of a run's updates a second, over its rows of metrics but the first, in which it was compiled."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = [row["steps_per_second"] for row in rows if "steps_per_second" in row]
    return statistics.median(rates[1:] or rates)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


class _Jobs:
    """A few places to run processes in, each with its share of this machine; a context manager.

    Asked to stop, it tells every process of its own once, as a second signal would end it without saving.
    """

    def __init__(self, num: int):
        cores, devices = sorted(os.sched_getaffinity(0)), gpus()
        self._places = SimpleQueue()
        for i in range(num):
            own = set(cores[i::num]) if len(cores) >= num else set(cores)
            self._places.put((own, {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if devices and num > 1 else {}))
        self._pool = ThreadPoolExecutor(num)
        self._stopping = threading.Event()
        self._running = set()

    def __enter__(self):
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        self._stop()
        self._pool.shutdown()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def map(self, function, items) -> list:
        """function of each item, some at a time, in their order."""
        futures = [self._pool.submit(function, item) for item in items]
        return [future.result() for future in futures]

    def main(self, workdir: Path, *flags: str) -> str:
        """Runs `dualmcmc_jax.main`; returns what went wrong, in a line, or nothing."""
        if self._stopping.is_set():
            raise Stopped
        cores, devices = self._places.get()
        try:
            with (workdir / "log.txt").open("a+") as log:
                command = [sys.executable, "-m", "dualmcmc_jax.main", *flags, "--quiet"]
                process = subprocess.Popen(
                    command, stdout=log, stderr=log, env=os.environ | devices, start_new_session=True
                )
                self._running.add(process)
                os.sched_setaffinity(process.pid, cores)
                code = process.wait()
                self._running.discard(process)
                if self._stopping.is_set():
                    raise Stopped
                log.seek(0)
                lines = log.read().split("\n")
        finally:
            self._places.put((cores, devices))
        return f"exit code {code}: {''.join(lines[-2:])}" if code else ""

    @contextlib.contextmanager
    def claim(self, folder: Path) -> Iterator[None]:
        """While it is entered, the folder is this process's; waits for others to leave it."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".study").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._stopping.wait(_POLL_SECONDS):
                        raise Stopped from None
            yield

    def _stop(self, *_):
        self._stopping.set()
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
