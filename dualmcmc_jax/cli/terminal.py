"""Log messages and colors on stderr. Messages are printed above the progress bar."""

import logging
import os
import sys

YELLOW, RED = 33, 31


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
