"""Processes of a study: a few at a time, each with its share of this machine, and each folder one's alone."""

import contextlib
import glob
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import filelock

_POLL_SECONDS = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The study was asked to stop; what its runs have done is saved."""

    def __init__(self):
        super().__init__("stopped; the same command goes on from there")


def gpus() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]


class Jobs:
    """A few places to run processes in; a context manager of the main thread.

    Asked to stop, by a signal or by leaving it early, it tells each of its processes, which then save and end. A second
    signal ends them at once.
    """

    def __init__(self, num: int):
        cores, devices = sorted(_cores()), gpus()
        self._places = SimpleQueue()
        for i in range(num):
            own = set(cores[i::num]) if len(cores) >= num else set(cores)
            self._places.put((own, {"CUDA_VISIBLE_DEVICES": devices[i]} if devices and num > 1 else {}))
        self._pool = ThreadPoolExecutor(num)
        self._stopping = threading.Event()
        self._lock = threading.RLock()  # of what follows; a signal may come while this thread has it
        self._running = set()

    def __enter__(self):
        self._before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(self, *_):
        if not self._stopping.is_set():
            self._stop()
        self._pool.shutdown()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def map(self, function, items) -> list:
        """function of each item, some at a time, in their order."""
        futures = [self._pool.submit(function, item) for item in items]
        return [future.result() for future in futures]

    def main(self, workdir: Path, lock: IO, *flags: str) -> str:
        """Run `dualmcmc_jax.main` in a process of its own, and return what went wrong; nothing if the process succeeds.

        The process inherits lock, an open file that is locked. So the lock outlives this process if this one is killed.
        """
        cores, devices = self._places.get()
        command = [sys.executable, "-m", "dualmcmc_jax.main", *flags, "--quiet"]
        try:
            with (workdir / "log.txt").open("a+") as log:
                start = log.seek(0, os.SEEK_END)
                with self._lock:
                    if self._stopping.is_set():
                        raise Stopped
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=os.environ | devices,
                        pass_fds=(lock.fileno(),),
                        start_new_session=True,
                    )
                    self._running.add(process)
                _confine(process.pid, cores)
                code = process.wait()
                with self._lock:
                    self._running.discard(process)
                if self._stopping.is_set():
                    raise Stopped
                log.seek(start)
                said = log.read().strip().rpartition("\n")[2]
        finally:
            self._places.put((cores, devices))
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{ended}: {said or 'nothing said'}" if code else ""

    @contextlib.contextmanager
    def claim(self, folder: Path, *, wait: bool = True) -> Iterator[IO | None]:
        """Lock a folder for this process while entered, and yield the open file that is locked.

        If another process has the folder, wait until it leaves; without wait, yield None.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".study").open("w") as file:
            while not _locked(file, folder):
                if not wait:
                    yield None
                    return
                if self._stopping.wait(_POLL_SECONDS):
                    raise Stopped
            yield file

    def _stop(self, number: int | None = None, _frame=None):
        with self._lock:
            again = self._stopping.is_set()
            self._stopping.set()
            for process in self._running:
                process.terminate()
        if number and self._running and not again:
            print(f"stopping: waiting for {len(self._running)} runs to save; again: at once", file=sys.stderr)


def _locked(file: IO, folder: Path) -> bool:
    """Lock an open file, and return whether nobody else has it locked.

    It stays locked until this process and all that inherited the file have closed it. `filelock.FileLock` cannot be
    handed to another process like that: leaving it unlocks the file for all.
    """
    try:
        return filelock.lock_descriptor(file.fileno(), blocking=False)
    except OSError as error:
        found = f"{folder} without locks ({error.strerror})"
        raise ValueError(f"workdir: found {found}, expected a file system with flock") from error


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count()))


def _confine(pid: int, cores: set[int]) -> None:
    """Leaves a process these cores, where that can be said."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(pid, cores)
