"""Results on stdout; log messages and colors on stderr. Messages are printed above the progress bar."""

import contextlib
import logging
import os
import sys

YELLOW, RED = 33, 31
_log = logging.getLogger(__name__)


def start(*, quiet: bool, verbose: bool) -> None:
    """Send the log messages of the program to stderr.

    Args:
      quiet: whether to show only warnings and errors, and no progress bars.
      verbose: whether to show debug messages too.
    """
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    log = logging.getLogger("dualmcmc_jax")
    log.handlers = [_MessageHandler()]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def show(text: str) -> None:
    """Print results that are also in files. An output that cannot be written never ends the program.

    Characters that the encoding of stdout lacks become "?". A closed pipe, such as that of `| head`, is ignored. Any
    other problem is logged as a warning. After a problem, nothing more is printed.
    """
    stdout = sys.stdout
    if stdout is None or stdout.closed:
        return
    encoding = stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
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


def one_line(text: str) -> str:
    """Return the text as one line of at most 1,000 printable characters.

    File names in a message may contain line breaks and control characters.
    """
    line = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(line.split())
    return line if len(line) <= 1000 else f"{line[:990]} [...]"


class _MessageHandler(logging.Handler):
    def emit(self, record):
        from tqdm import tqdm

        text = one_line(record.getMessage())
        tqdm.write(colored(text, YELLOW) if record.levelno >= logging.WARNING else text, file=sys.stderr)
