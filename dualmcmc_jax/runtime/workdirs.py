"""The config.json of a workdir, and the lock that keeps other processes out.

Here a config is a plain dict. `config_check` checks whether its fields are valid.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock
import jax

from dualmcmc_jax.runtime import storage


@contextlib.contextmanager
def claim(workdir: Path, config: dict[str, Any], *, check: Callable[[], None] | None = None) -> Iterator[None]:
    """Lock a workdir for this process within the context, and write its config.json.

    Args:
      workdir: the folder of the run. It is created if it does not exist.
      config: the content of config.json.
      check: a function that raises ValueError if the workdir holds a run with another config. It is called after
        locking and before writing, because another process may have started a run since the caller's own check.

    Raises:
      ValueError: check raises it, the workdir cannot be written to, or another process holds the lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _lock(stack.enter_context(open(workdir / ".lock", "a+", opener=_no_link)), workdir)
                if check:
                    check()
                _remove_incomplete(workdir)
                replace(workdir / "config.json", json.dumps(config, indent=2) + "\n")
        except OSError as error:
            found = f"{workdir} ({error.strerror})"
            raise ValueError(f"workdir: found {found}, expected a folder that can be written to") from error
        yield


def _lock(file: IO[str], workdir: Path) -> None:
    """Lock an open file until it is closed, and write the name of this process into it."""
    try:
        locked = filelock.lock_descriptor(file.fileno(), blocking=False)
    except OSError:  # the file system does not support locks
        return
    if not locked:
        file.seek(0)
        owner = file.read().strip() or "another process"
        raise ValueError(
            f"workdir: found {workdir} in use by {owner}, expected a workdir in which no other process trains"
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _remove_incomplete(workdir: Path) -> None:
    """Remove the temporary files that `replace` leaves if the training process is killed while it writes."""
    for path in (*workdir.glob(".*.new"), *workdir.glob("samples/.*_*.new")):  # other files may belong to other modes
        path.unlink(missing_ok=True)


def replace(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file atomically: a reader sees the old or the new content, never a part.

    In text, bytes of file names that are not UTF-8 become "?".
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb", opener=_no_link) as file:
            file.write(content.encode(errors="replace") if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_config(workdir: Path) -> dict[str, Any] | None:
    """Read the config.json of a workdir. Return None if the file does not exist.

    Raises:
      ValueError: config.json is not a regular file or does not contain a JSON object.
    """
    path = workdir / "config.json"
    shown = storage.shown(path)
    if not path.exists():
        return None
    if not path.is_file():
        raise ValueError(
            f"{shown}: found something other than a file, expected the config of a run; choose another workdir"
        )
    try:
        stored = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown}: found {error}, expected the config of a run; choose another workdir") from error
    if not isinstance(stored, dict):
        found = f"a {type(stored).__name__}"
        raise ValueError(f"{shown}: found {found}, expected the config of a run; choose another workdir")
    return stored
