"""A workdir: which config and which process it belongs to."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import jax
from ml_collections import ConfigDict

from dualmcmc_jax import config_check
from dualmcmc_jax.configs import default
from dualmcmc_jax.runtime import storage

FREE = ("train.num_steps", "train.unroll", "train.deterministic", "health", "log", "checkpoint", "evaluation")
"""Fields that may change from one start of a run to the next: they leave the mathematics of a step alone."""


@contextlib.contextmanager
def claim(workdir: Path, config: ConfigDict) -> Iterator[None]:
    """While it is entered, the workdir belongs to this process; from then on, to this config, in config.json.

    Raises:
      ValueError: the workdir holds a run of another config, cannot be written to, or another process works in it.
    """
    check(workdir, config)
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _lock(stack.enter_context(open(workdir / ".lock", "a+", opener=_no_link)), workdir)
                replace(workdir / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
        except OSError as error:
            found = f"{workdir} ({error.strerror})"
            raise ValueError(f"--workdir: found {found}, expected a folder to write to") from error
        yield


def _lock(file: IO[str], workdir: Path) -> None:
    """Locks an open file, which the kernel unlocks when it is closed or its process ends, and writes who has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        raise ValueError(f"--workdir: found {workdir} in use by {owner}, expected none that trains there") from None
    except OSError:  # a file system without locks
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb", opener=_no_link) as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def check(workdir: Path, config: ConfigDict) -> None:
    """Raises ValueError if the workdir holds a run whose config differs in more than the free fields."""
    path = workdir / "config.json"
    if not path.exists():
        return
    if not path.is_file():
        raise ValueError(f"{path}: found no file, expected the config of a run; choose another --workdir")
    try:
        stored = json.loads(path.read_text())
        _flat(stored)
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: found {error}, expected the config of a run; choose another --workdir") from error
    compare(path, stored, config)


def compare(path: Path, stored: dict, config: ConfigDict) -> None:
    """Raises ValueError if a config differs from the one stored in a file in more than the free fields.

    A field that the file does not know, because it is from before there was one, has its default there.
    """
    stored = _flat(default.get_config().to_dict()) | _flat(stored)
    stored = json.loads(json.dumps(stored))
    given = _flat(json.loads(json.dumps(config.to_dict())))
    differing = [
        f"{name} is {stored.get(name)!r} there and {given.get(name)!r} here"
        for name in sorted(stored.keys() | given.keys())
        if stored.get(name) != given.get(name) and not any(f"{name}.".startswith(f"{free}.") for free in FREE)
    ]
    if differing:
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        what = "; ".join(differing[:5]) + more
        raise ValueError(f"{storage.shown(path)}: a run of another config: {what}")


def stored_config(workdir: Path) -> ConfigDict:
    """The config of the run in a workdir; raises ValueError if there is none."""
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{storage.shown(path)}: found no such file, expected the config of a run")
    try:
        return as_config(json.loads(path.read_text()))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{storage.shown(path)}: {error}; expected the config of a run") from error


def as_config(stored: Any) -> ConfigDict:
    """A config from what JSON has kept of it; raises ValueError for fields there are none of, or impossible values."""
    config = default.get_config().lock()
    try:
        flat = {k: tuple(v) if isinstance(v, list) else v for k, v in _flat(stored).items()}
        config.update_from_flattened_dict(flat)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"found {error}") from error
    config_check.check(config)
    return config


def listing(config: ConfigDict) -> str:
    """The config as lines of the flags that set it."""
    return "\n".join(f"--config.{name}={value!r}" for name, value in _flat(config.to_dict()).items())


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
