"""Processes of a study. A limited number runs at a time, each with a share of this machine and a locked folder."""

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
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(Exception):
    """Exception that is raised if a signal asks the study to stop. The states of its runs are saved."""

    def __init__(self):
        super().__init__("stopped; run the same command again to continue")


def gpus() -> list[str]:
    """Return the GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]


class Jobs:
    """Context manager that runs up to `num` processes at a time, each on a share of the cores or on one GPU.

    Use it in the main thread. A signal to this process, or leaving the context early, asks the running processes to
    stop; they then save and exit. A second signal makes them exit at once.
    """

    def __init__(self, num: int):
        all_cores, devices = sorted(_cores()), gpus()
        self._slots = SimpleQueue()
        for i in range(num):
            cores = set(all_cores[i::num]) if len(all_cores) >= num else set(all_cores)
            self._slots.put((cores, {"CUDA_VISIBLE_DEVICES": devices[i]} if devices and num > 1 else {}))
        self._pool = ThreadPoolExecutor(num)
        self._stopping = threading.Event()
        # The lock guards _running. It is reentrant, because a signal handler may run while this thread holds it.
        self._lock = threading.RLock()
        self._running = set()

    def __enter__(self):
        self._handlers = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(self, *_):
        if not self._stopping.is_set():
            self._stop()
        self._pool.shutdown()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def map(self, function, items) -> list:
        """Return function(item) for each item, in the order of the items. Up to `num` calls run at the same time."""
        futures = [self._pool.submit(function, item) for item in items]
        return [future.result() for future in futures]

    def main(self, workdir: Path, lock: IO, *flags: str) -> str:
        """Run `dualmcmc_jax.main` in a separate process.

        Args:
          workdir: workdir of the run. The output of the process is appended to log.txt in this folder.
          lock: the locked file from `claim`. The new process inherits this file, so the folder stays locked if this
            process is killed while the new one runs.
          *flags: flags of the command line.

        Returns:
          The reason of a failure in one line, or an empty string if the process succeeds.

        Raises:
          Stopped: the study was asked to stop.
        """
        cores, devices = self._slots.get()
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
                last_line = log.read().strip().rpartition("\n")[2]
        finally:
            self._slots.put((cores, devices))
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{reason}: {last_line or 'no message'}" if code else ""

    @contextlib.contextmanager
    def claim(self, folder: Path, *, wait: bool = True) -> Iterator[IO | None]:
        """Lock a folder while the context is entered, and yield the open file that holds the lock.

        Args:
          folder: the folder. It is created if it does not exist.
          wait: what to do if another process has locked the folder: wait until it is free, or yield None.
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
        """Ask all running processes to stop. `number` is the number of the signal, or None without a signal."""
        with self._lock:
            is_second_signal = self._stopping.is_set()
            self._stopping.set()
            for process in self._running:
                process.terminate()
        if number and self._running and not is_second_signal:
            message = f"stopping: waiting until {len(self._running)} runs are saved; interrupt again to stop at once"
            print(message, file=sys.stderr)


def _locked(file: IO, folder: Path) -> bool:
    """Try to lock an open file, and return whether this succeeded.

    The file stays locked until this process and all processes that inherited the file have closed it.
    `filelock.FileLock` cannot be passed to another process in this way, because its release unlocks the file for all.
    """
    try:
        return filelock.lock_descriptor(file.fileno(), blocking=False)
    except OSError as error:
        found = f"{folder} in a file system without locks ({error.strerror})"
        raise ValueError(f"workdir: found {found}, expected one that supports flock") from error


def _cores() -> set[int]:
    """Return the CPU cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count()))


def _confine(pid: int, cores: set[int]) -> None:
    """Restrict a process to some cores, if the operating system supports this."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(pid, cores)
