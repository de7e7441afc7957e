"""The config.json and digests.json of a workdir, and the lock that keeps other processes out.

Here a config is a plain dict. `config_check` checks whether its fields are valid.
"""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock
import jax

from dualmcmc_jax.runtime import storage

_log = logging.getLogger(__name__)

DIGESTS = "digests.json"
"""Name of the file in a workdir that holds the digests of the training and held-out examples."""

MAX_JSON = 10**6
"""Largest size in bytes of a file that `read_json` reads."""


@contextlib.contextmanager
def claim(
    workdir: Path,
    config: dict[str, Any],
    *,
    data: dict[str, Any] | None = None,
    check: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Lock a workdir for this process within the context, and write its config.json and digests.json.

    Args:
      workdir: the folder of the run. It is created if it does not exist.
      config: the content of config.json.
      data: the content of digests.json, from `sources.digests`. If the workdir has checkpoints and a digests.json, the
        two must be equal. None: digests.json is not read. None or empty: it is not written.
      check: a function that raises ValueError if the workdir holds a run with another config. It is called after
        locking and before writing, because another process may have started a run since the caller's own check.

    Raises:
      ValueError: check raises it, the run was trained on other data, the workdir cannot be written to, or another
        process holds the lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _lock(stack.enter_context(open(workdir / ".lock", "a+", opener=_no_link)), workdir)
                if check:
                    check()
                if data is not None:
                    _check_data(workdir, config, data)
                _remove_incomplete(workdir)
                replace(workdir / "config.json", json.dumps(config, indent=2) + "\n")
                if data:
                    replace(workdir / DIGESTS, json.dumps(data, indent=2) + "\n")
        except OSError as error:
            found = f"{workdir} ({error.strerror})"
            raise ValueError(f"workdir: found {found}, expected a folder that can be written to") from error
        yield


def _check_data(workdir: Path, config: dict[str, Any], data: dict[str, Any]) -> None:
    """Raise ValueError if the checkpoints of a workdir were trained on data with other digests.

    If the data are the same, but config.json names another source of them, log a line.
    """
    from dualmcmc_jax.data import sources  # imported late: tqdm reads TQDM_DISABLE when it is imported

    if not (has_checkpoints(workdir) and (workdir / DIGESTS).exists()):
        return
    before, now = _source(read_config(workdir) or {}), _source(config)
    if is_other := not sources.same(before, now):
        way_out = f"for {now!r} instead of {before!r}, choose another workdir: --workdir=DIR"
    else:
        way_out = f"to go on with the data as they are now, delete {storage.shown(workdir / DIGESTS)}"
    try:
        found = _changes(workdir, data)
    except ValueError as error:
        raise ValueError(f"{error}; {way_out}") from error
    if is_other and not data:
        found = f"data.source: found {now!r}, whose data have no digests"
    if found:
        raise ValueError(f"{found}, expected the same data; {way_out}")
    if is_other:
        _log.warning(
            "data.source: found %r, expected %r as before; the data are the same, so training goes on", now, before
        )


def _source(config: dict[str, Any]) -> str:
    """Return the data.source of the content of a config.json, or "" if it has none."""
    section = config.get("data")
    return str(section.get("source", "")) if isinstance(section, dict) else ""


def warn_of_changed_data(workdir: Path, data: dict[str, Any]) -> None:
    """Log a warning if the run in a workdir was trained on data with other digests, or if digests.json is damaged.

    Args:
      workdir: the folder of the run.
      data: the digests of the data as they are now, from `sources.digests`.
    """
    try:
        found = _changes(workdir, data)
        if found:
            _log.warning("%s; the data are used as they are now", found)
    except ValueError as error:
        _log.warning("%s", error)


def _changes(workdir: Path, data: dict[str, Any]) -> str:
    """Return a sentence that says how data differ from those of the run in a workdir, or "" if they do not.

    Without digests.json, or if `data` is empty, nothing is compared.

    Raises:
      ValueError: digests.json does not contain digests.
    """
    path = workdir / DIGESTS
    if not (data and path.exists()):
        return ""
    try:
        stored = read_json(path)
        changes = [_change(split, stored[split], now) for split, now in data.items() if stored[split] != now]
    except (ValueError, KeyError, TypeError) as error:
        found = f"{storage.shown(path)}: found no digests of training and held-out examples"
        raise ValueError(f"{found}, expected those of the run") from error
    since = f"data that have changed since {storage.shown(workdir)} was trained on them"
    return f"data.source: found {since} ({'; '.join(changes)})" if changes else ""


def _change(split: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    if before["examples"] != now["examples"]:
        return f"{split}: {before['examples']} examples then, {now['examples']} now"
    return f"{split}: {now['examples']} examples as before, but not the same ones"


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


def has_checkpoints(workdir: Path) -> bool:
    """Return whether a workdir has complete checkpoints, intact or damaged."""
    names = [path.name for path in (storage.home(workdir) / "checkpoints").glob("*")]
    return any(name.isdigit() or name.startswith("damaged-") for name in names)


def save_was_interrupted(workdir: Path) -> bool:
    """Return whether a process was killed while it saved a checkpoint in a workdir that is not in a bucket."""
    return any((storage.home(workdir) / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def never_saved(workdir: Path) -> bool:
    """Return whether a run began in a workdir and ended before its first checkpoint was complete."""
    return (storage.home(workdir) / "checkpoints").is_dir() and not has_checkpoints(workdir)


def read_json(path: Path) -> dict[str, Any]:
    """Read a small file that contains a JSON object.

    Raises:
      ValueError: it is not a file, cannot be read, is larger than `MAX_JSON`, or contains no JSON object. The message
        says what was found.
    """
    if not path.is_file():
        raise ValueError("something other than a file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON + 1)
        if len(content) > MAX_JSON:
            raise ValueError(f"more than {MAX_JSON:,} bytes")
        stored = json.loads(content)
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(stored, dict):
        raise ValueError(f"a {type(stored).__name__}")
    return stored


def read_config(workdir: Path) -> dict[str, Any] | None:
    """Read the config.json of a workdir. Return None if the file does not exist.

    Raises:
      ValueError: config.json is not a regular file or does not contain a JSON object.
    """
    path = workdir / "config.json"
    shown = storage.shown(path)
    if not path.exists():
        return None
    try:
        return read_json(path)
    except ValueError as error:
        raise ValueError(f"{shown}: found {error}, expected the config of a run; choose another workdir") from error
