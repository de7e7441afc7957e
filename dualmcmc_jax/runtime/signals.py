"""Stopping when asked: by SIGTERM, by SIGINT (Ctrl-C), or by notice that the machine will be taken away."""

import os
import signal

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75
"""Of a run that was asked to stop and saved its state: EX_TEMPFAIL of sysexits.h, try again later."""


class Stopped(Exception):
    """Training stopped after `step`, whose state is saved, because it was asked to."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}, which is saved; the same command goes on from there")


class Watch:
    """Notices the first signal and leaves at once at the second; a context manager of the main thread.

    Of several processes all stop after the same step: there JAX's coordination service hears of SIGTERM on any of them
    and agrees on a step that none has passed.
    """

    def __init__(self):
        self._alone = jax.process_count() == 1
        self._asked = False

    def asked(self, step: int) -> bool:
        """Whether to stop after this step; every process asks once a step."""
        return self._asked if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def __enter__(self):
        signals = (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,)
        self._before = {number: signal.signal(number, self._notice) for number in signals}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number, _frame):
        if self._asked:
            os._exit(128 + number)
        self._asked = True
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
