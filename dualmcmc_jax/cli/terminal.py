"""Notes on stderr, above the progress bar: what a person at a terminal sees beside the results."""

import logging
import os
import sys

YELLOW, RED = 33, 31


def start(*, quiet: bool, verbose: bool) -> None:
    """Send notes to stderr from now on: with quiet only warnings, and no progress bars; with verbose, details too."""
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    log = logging.getLogger("dualmcmc_jax")
    log.handlers = [_Notes()]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def colored(text: str, color: int) -> str:
    """Return a text in a colour, if stderr is a terminal that has colours and NO_COLOR is not set."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{color}m{text}\x1b[0m"


def one_line(text: str) -> str:
    """Return a text as one line of printable characters, cut off where it gets long: files can have any name."""
    line = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(line.split())
    return line if len(line) <= 1000 else f"{line[:990]} [...]"


class _Notes(logging.Handler):
    def emit(self, record):
        from tqdm import tqdm

        text = one_line(record.getMessage())
        tqdm.write(colored(text, YELLOW) if record.levelno >= logging.WARNING else text, file=sys.stderr)
