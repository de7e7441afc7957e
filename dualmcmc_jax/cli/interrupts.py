"""Ctrl-C while a program is imported. Programs call this module before all other imports."""

import signal


def end_quietly() -> None:
    """Let Ctrl-C end the process without a traceback, until `command_line.run` handles it."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
