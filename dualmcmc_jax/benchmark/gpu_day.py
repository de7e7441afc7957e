"""Time the full-size updates and the authors' PyTorch code on one GPU, within a time limit. Used by launch/gpu_day.sh.

  python -m dualmcmc_jax.benchmark.gpu_day --out=DIR [--authors=DIR] [--seconds=N] [--tiny]

Every measurement runs in a separate process. All processes start at once and prepare everything that needs no GPU. Then
the groups of processes compile one after another, so that the GPU is nearly idle while XLA chooses its algorithms.
Within a group, one process at a time is timed. The most important measurements come first. If time runs out, the last
ones are skipped. Each process writes DIR/NAME.json whenever it has a new number. The final table is printed and written
to DIR/table.md.

--out=DIR       folder for the results
--authors=DIR   a checkout of the authors' repository; without this flag, the authors' code is not timed
--seconds=N     time limit after which no new measurement begins (default: 280)
--only=NAMES    names of measurements, separated by commas, such as jax-cifar10-float32-two; the others are left out
--tiny          narrow networks and short chains, to test this program on a CPU
"""

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from dualmcmc_jax.benchmark.gpu_table import table
from dualmcmc_jax.cli import terminal
from dualmcmc_jax.runtime import storage

WIDTHS = ("energy", "generator", "encoder")
LEVELS = {"cifar10": (4, 4, 4), "celeba64": (5, 5, 4)}
SHORTEST = 40.0
"""Smallest number of remaining seconds with which a group still begins."""


class Job(NamedTuple):
    """One measurement.

    Attributes:
      name: name of the measurement and of its output files.
      words: command line after `python -m`.
      prepare: maximum number of seconds for preparation.
      time: maximum number of seconds for timing.
    """

    name: str
    words: list[str]
    prepare: float = 120.0
    time: float = 45.0

    @property
    def log(self) -> str:
        """Return the name of the file for the messages of the process."""
        return f"{self.name}.log"


def groups(out: Path, authors: Path | None, *, tiny: bool) -> list[list[Job]]:
    """Return groups of measurements, the most important first. The measurements of a group compile at the same time."""
    limits = {"prepare": 400.0, "time": 200.0} if tiny else {}

    def ours(recipe: str, dtype: str, chains: str, *more: str) -> Job:
        name = f"jax-{recipe}-{dtype}-{chains}"
        words = [f"--config={recipe}", f"--config.train.compute_dtype={dtype}", f"--json={out}/{name}.json"]
        words.append(f"--config.loss.fresh_negatives={chains == 'two'}")
        if tiny:
            for section, levels in zip(WIDTHS, LEVELS[recipe], strict=True):
                words.append(f"--config.{section}.widths=({','.join(['4'] * levels)})")
            words += [f"--config.{chain}_chain.num_steps=2" for chain in "xz"]
            words += ["--config.train.batch_size=4", "--config.train.unroll=1", "--repeats=3"]
        return Job(name, ["dualmcmc_jax.benchmark.on_cue", *words, *more], **limits)

    def theirs(recipe: str, *variants: str, name: str = "eager") -> list[Job]:
        if not authors:
            return []
        name = f"torch-{recipe}-{name}"
        words = [f"--authors={authors}", f"--recipe={recipe}", f"--variants={','.join(variants)}"]
        words += [f"--json={out}/{name}.json", *(["--tiny", "--repeats=3"] if tiny else [])]
        return [Job(name, ["dualmcmc_jax.benchmark.authors", *words], **limits)]

    return [
        [
            ours("cifar10", "bfloat16", "one", "--peaks", f"--profile={out}/profile"),
            ours("cifar10", "bfloat16", "two"),
            ours("celeba64", "bfloat16", "one"),
        ],
        theirs("cifar10", "eager", "eager_one_chain"),
        [ours("cifar10", "tensorfloat32", "one", "--peaks"), ours("celeba64", "tensorfloat32", "one")],
        theirs("celeba64", "eager", "eager_one_chain"),
        theirs("cifar10", "compile", name="compile"),
        [
            ours("cifar10", "tensorfloat32", "two"),
            ours("cifar10", "float32", "two", "--peaks"),
            ours("celeba64", "bfloat16", "two"),
        ],
        theirs("cifar10", "bfloat16", "bfloat16_one_chain", "benchmark", name="tuned"),
        [ours("celeba64", "tensorfloat32", "two"), ours("celeba64", "float32", "two")],
        theirs("celeba64", "bfloat16", "benchmark", name="tuned"),
    ]


def selected(planned: list[list[Job]], names: list[str]) -> list[list[Job]]:
    """Return the groups with only the measurements of the given names. Exit if a name is unknown."""
    known = [job.name for group in planned for job in group]
    for name in names:
        if name not in known:
            sys.exit(f"error: --only: found {name!r}, expected one of {', '.join(known)}")
    return [[job for job in group if job.name in names] for group in planned]


class Process:
    """Process of one measurement. The process prints a word after each phase and waits for a cue before the next phase.

    Attributes:
      job: the measurement.
      timed: whether all timings have finished.
    """

    def __init__(self, job: Job, log: Path):
        self.job, self.timed, self._words = job, False, queue.Queue()
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *job.words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=environment,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Put each printed line into the queue, and "ended" once the process has closed its output."""
        for line in self._process.stdout:
            self._words.put(line.strip())
        self._words.put("ended")

    def wait_for(self, word: str, *, until: float) -> bool:
        """Return whether the process prints `word` before the time `until`. If it does not, kill the process."""
        while True:
            try:
                printed = self._words.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                printed = "late"
            if printed == word:
                return True
            if printed in ("late", "ended"):
                self.end()
                return False

    def cue(self) -> None:
        """Let the process begin its next phase."""
        with contextlib.suppress(BrokenPipeError):  # the process has ended, which wait_for reports
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def finish(self, *, until: float) -> None:
        """Wait until the process exits. Kill the process at the time `until`."""
        try:
            self._process.wait(max(0.01, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.end()

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Run the measurements, then print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--seconds", type=float, default=280.0)
    parser.add_argument("--only")
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    try:
        for folder in (flags.out, flags.out / "logs"):
            storage.check_writable("--out", folder)
    except ValueError as error:
        sys.exit(f"error: {error}")
    begin = time.monotonic()
    deadline = begin + flags.seconds
    say = lambda text: terminal.show(f"{time.monotonic() - begin:6.1f} s  {text}")
    (flags.out / "logs").mkdir(parents=True, exist_ok=True)
    planned = groups(flags.out, flags.authors, tiny=flags.tiny)
    if flags.only:
        planned = selected(planned, flags.only.split(","))
    planned = [group for group in planned if group]
    ahead, started = 1 if flags.tiny else len(planned), []
    try:
        for number, group in enumerate(planned):
            if deadline - time.monotonic() < SHORTEST:
                say(f"skipped because of the time limit: {', '.join(job.name for job in group)}")
                continue
            for jobs in planned[len(started) : number + 1 + ahead]:
                started.append([Process(job, flags.out / "logs" / job.log) for job in jobs])
            take_turns(started[number], deadline, say)
    finally:
        for process in (process for group in started for process in group):
            if process.timed:
                process.finish(until=max(time.monotonic(), deadline) + 3)  # it may still be counting operations
            else:
                process.end()
    text = table({path.stem: json.loads(path.read_text()) for path in sorted(flags.out.glob("*-*.json"))})
    (flags.out / "table.md").write_text(text + "\n")
    terminal.show(text)


def take_turns(group: list[Process], deadline: float, say) -> None:
    """Let the processes of a group compile at the same time, then time one process after another."""
    now = time.monotonic
    limit = min(deadline, now() + max(process.job.prepare for process in group))
    ready = [process for process in group if process.wait_for("ready", until=limit)]
    for process in ready:
        process.cue()
    prepared = [process for process in ready if process.wait_for("prepared", until=limit)]
    say(f"prepared: {', '.join(p.job.name for p in prepared) or 'none'}")
    for process in prepared:
        process.cue()
        process.timed = process.wait_for("timed", until=min(deadline + 10, now() + process.job.time))
        say(f"{'timed' if process.timed else 'timing did not finish'}: {process.job.name}")
    for process in group:
        if process not in prepared:
            say(f"failed or exceeded its time limit, see logs/{process.job.log}")


if __name__ == "__main__":
    main()
