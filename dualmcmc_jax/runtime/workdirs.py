"""A workdir: which config and which process it belongs to.

A config is plain data here: a dict of what config.json holds. Whether it is valid is checked above this package.
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
    """Lock a workdir for this process while entered, and write its config.json.

    Args:
      workdir: the folder of the run; made if it does not exist.
      config: the content of config.json.
      check: called when the workdir is locked and nothing has been written. It raises ValueError if the workdir holds
        a run of another config, which another process may have left there since the caller looked.

    Raises:
      ValueError: check raises it, the workdir cannot be written to, or another process works in it.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _lock(stack.enter_context(open(workdir / ".lock", "a+", opener=_no_link)), workdir)
                if check:
                    check()
                replace(workdir / "config.json", json.dumps(config, indent=2) + "\n")
        except OSError as error:
            found = f"{workdir} ({error.strerror})"
            raise ValueError(f"workdir: found {found}, expected a folder to write to") from error
        yield


def _lock(file: IO[str], workdir: Path) -> None:
    """Lock an open file until it is closed or this process ends, and write into it who has it."""
    try:
        locked = filelock.lock_descriptor(file.fileno(), blocking=False)
    except OSError:  # a file system without locks
        return
    if not locked:
        file.seek(0)
        owner = file.read().strip() or "another process"
        raise ValueError(f"workdir: found {workdir} in use by {owner}, expected none that trains there")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def replace(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb", opener=_no_link) as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_config(workdir: Path) -> dict[str, Any] | None:
    """Read config.json of a workdir; None if there is no such file.

    Raises:
      ValueError: config.json is no file, or it does not hold a JSON object.
    """
    path = workdir / "config.json"
    shown = storage.shown(path)
    if not path.exists():
        return None
    if not path.is_file():
        raise ValueError(f"{shown}: found no file, expected the config of a run; choose another workdir")
    try:
        stored = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown}: found {error}, expected the config of a run; choose another workdir") from error
    if not isinstance(stored, dict):
        found = f"a {type(stored).__name__}"
        raise ValueError(f"{shown}: found {found}, expected the config of a run; choose another workdir")
    return stored
