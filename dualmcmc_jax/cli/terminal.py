"""Results on stdout; log messages and colors on stderr. Messages are printed above the progress bar."""

import contextlib
import errno
import logging
import os
import sys
from typing import TextIO

YELLOW, RED = 33, 31
_log = logging.getLogger(__name__)

CLOSED = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of writing to a pipe, terminal or file descriptor that was closed."""


def outlive_streams() -> None:
    """Let the program go on if stdout or stderr is closed, now or later. What it prints there is then lost.

    The null device takes the place of standard streams that are already closed. Otherwise the next files that the
    program opens would get their descriptors, and messages would be written into these files.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor is that of the closed stream
            setattr(sys, name, os.fdopen(null, mode))
    sys.stdout = LastingStream(sys.stdout, ignored=CLOSED)
    sys.stderr = LastingStream(sys.stderr, ignored=(*CLOSED, errno.ENOSPC))


class LastingStream:
    """A text stream that drops its text from the first error of certain kinds on.

    Args:
      stream: the stream to write to.
      ignored: the error numbers that are not raised.
    """

    def __init__(self, stream: TextIO, *, ignored: tuple[int, ...]):
        self._stream, self._ignored = stream, ignored

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt(self._stream.flush)

    def _attempt(self, call, *arguments) -> None:
        try:
            call(*arguments)
        except OSError as error:
            if error.errno not in self._ignored:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())  # also for text that is still in the stream's buffer
            os.close(null)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def start(*, quiet: bool, verbose: bool) -> None:
    """Send the log messages of the program, and with `verbose` the warnings of other packages, to stderr.

    Args:
      quiet: whether to show only warnings and errors, and no progress bars.
      verbose: whether to show debug messages too.
    """
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    logging.captureWarnings(True)
    levels = {
        "dualmcmc_jax": logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO,
        "py.warnings": logging.WARNING if verbose else logging.ERROR,  # the warnings of Python and of other packages
    }
    for name, level in levels.items():
        log = logging.getLogger(name)
        log.handlers = [_MessageHandler()]
        log.propagate = False
        log.setLevel(level)


def show(text: str) -> None:
    """Print results that are also in files. An output that cannot be written never ends the program.

    Characters that could control the terminal become spaces, and those that the encoding of stdout lacks become "?". A
    closed pipe, such as that of `| head`, is ignored. Any other problem is logged as a warning. After a problem,
    nothing more is printed.
    """
    stdout = sys.stdout
    if stdout is None or stdout.closed:
        return
    encoding = stdout.encoding or "utf-8"
    try:
        print(printable(text.encode(encoding, "replace").decode(encoding)), flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        # Python writes what is left in the buffer once more at exit, and fails if that is not possible.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(sys.stdout.fileno(), stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            _log.warning("standard output could not be written (%s)", error.strerror)


def colored(text: str, color: int) -> str:
    """Return the text in a color if stderr is a terminal with colors and NO_COLOR is not set."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{color}m{text}\x1b[0m"


def printable(text: str) -> str:
    """Return the text with a space in place of each control character, except line breaks and tabs.

    Names of files and of metrics may come from someone else, and contain escape codes.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


def one_line(text: str) -> str:
    """Return the text as one line of at most 1,000 printable characters.

    File names in a message may contain line breaks and control characters.
    """
    line = " ".join(printable(text).split())
    return line if len(line) <= 1000 else f"{line[:990]} [...]"


class _MessageHandler(logging.Handler):
    def emit(self, record):
        from tqdm import tqdm

        text = one_line(record.getMessage())
        tqdm.write(colored(text, YELLOW) if record.levelno >= logging.WARNING else text, file=sys.stderr)
