"""Stopping a run by SIGTERM, by SIGINT (Ctrl-C), by a closed terminal, or by the notice of a cluster or machine."""

import os
import signal

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75
"""Exit code of a run that was asked to stop and saved its state: EX_TEMPFAIL (try again later) of sysexits.h."""
_NOTICES = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name))  # not on Windows
"""Signals that may arrive more than once, from a closed terminal or from the scheduler of a cluster."""


class Stopped(Exception):
    """Raised when training stopped on request. The state after `step` updates is saved."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step} and saved a checkpoint; run the same command again to resume")


class Watch:
    """A context manager that records signals which ask the run to stop. It must be entered in the main thread.

    The first signal asks training to stop after the current step. A second SIGTERM or SIGINT ends the process at once.
    A closed terminal sends SIGHUP, often twice, and many job scripts of Slurm ask for SIGUSR1 before the time limit. A
    second one of these changes nothing. A process that ignores one of them, because nohup started it, continues to do
    so. If there are several processes, JAX's coordination service receives a SIGTERM of any process and chooses the
    step after which all of them stop.
    """

    def __init__(self):
        self._alone = jax.process_count() == 1
        self._stop_requested = False

    def asked(self, step: int) -> bool:
        """Return whether to stop after this step. Every process must call this method once per step."""
        return self._stop_requested if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def __enter__(self):
        signals = [signal.SIGINT]
        if self._alone:
            signals.append(signal.SIGTERM)
        signals += [number for number in _NOTICES if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._record) for number in signals}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _record(self, number, _frame):
        if self._stop_requested and number in _NOTICES:
            return
        if self._stop_requested:
            os._exit(128 + number)
        self._stop_requested = True
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
