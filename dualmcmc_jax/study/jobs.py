"""Processes of a study: a few at a time, each with its share of this machine, and each folder one's alone."""

import contextlib
import fcntl
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

_POLL_SECONDS = 1.0


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
