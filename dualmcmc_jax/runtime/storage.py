"""Workdirs on Google Cloud Storage: checkpoints go there directly, all else by way of a local folder.

Nothing in a bucket keeps two runs from one workdir.
"""

import contextlib
import logging
import shutil
import tempfile
from pathlib import Path

from dualmcmc_jax.data.images import first_line

SCHEME = "gs://"
ROWS = ("metrics.jsonl", "config.json")
_HOME = ".home"  # a file of the local folder: where the workdir really is
_sent = {}
REQUEST_SECONDS = 120
"""After which a request to a bucket counts as failed, so that a stalled one cannot hold up training for ever."""
_log = logging.getLogger(__name__)


def open_workdir(name: str, *, argument: str = "workdir") -> Path:
    """Return the local folder to work in.

    Args:
      name: a local folder, or gs://BUCKET/FOLDER. The latter gets a temporary folder, with a copy of what is in the
        bucket except checkpoints.
      argument: the caller's name of this argument, for error messages.

    Raises:
      ValueError: the name is no path, or its bucket cannot be used.
    """
    if not name.startswith(SCHEME):
        return local_path(argument, name, expected="a local folder or gs://...")
    local = Path(tempfile.mkdtemp(prefix="dualmcmc_jax-"))
    try:
        with _said_in_one_line(f"{argument}: ", name):
            _pull(name, local)
    except ValueError:
        shutil.rmtree(local, ignore_errors=True)
        raise
    (local / _HOME).write_text(name)
    return local


def _pull(name: str, local: Path) -> None:
    import fsspec
    from etils import epath

    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False  # or others' checkpoints stay unseen
    bucket, root = _bucket_files(), _path_in_bucket(name)
    for remote in bucket.find(root):
        relative = remote.removeprefix(f"{root}/")
        path = local / relative
        if remote == root or remote.endswith("/") or Path(relative).parts[0] == "checkpoints":
            continue
        if not path.resolve().is_relative_to(local.resolve()):
            raise ValueError(f"an object {relative}")
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket.get_file(remote, str(path))
        _sent[path] = _stamp(path)
    (epath.Path(name) / "checkpoints").is_dir()  # by the way that Orbax takes


def local_path(argument: str, name: str, *, expected: str = "a local folder") -> Path:
    """Return the local path of an argument's value, ~ expanded; raise ValueError if the value is no local path."""
    if "://" in name:
        raise ValueError(f"{argument}: found {name}, expected {expected}")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{argument}: found {name}, expected a path: {error}") from error


def home(workdir: Path):
    """Return where a workdir's checkpoints are: the workdir as an absolute path, or an epath.Path of its bucket."""
    if not (workdir / _HOME).is_file():
        return workdir.absolute()
    from etils import epath

    return epath.Path((workdir / _HOME).read_text())


def shown(path: Path) -> str:
    """Return a path in a workdir as the user knows it."""
    for folder in (path, *path.parents):
        if (folder / _HOME).is_file():
            name = (folder / _HOME).read_text().rstrip("/")
            return f"{name}/{path.relative_to(folder).as_posix()}".removesuffix("/.")
    return str(path)


def is_remote(folder) -> bool:
    """Return whether a folder that `home` returned is in a bucket."""
    return str(folder).startswith(SCHEME)


def push(workdir: Path, names: tuple[str, ...] | None = None) -> bool:
    """Copy what is new or has changed in a workdir, of names if given, to its bucket; do nothing if it has none.

    Returns:
      Whether the bucket has everything now. What cannot be copied is named in a warning, and tried again the next time.
    """
    if not (workdir / _HOME).is_file():
        return True
    name = (workdir / _HOME).read_text()
    try:
        with _said_in_one_line("", name):
            bucket, root = _bucket_files(), _path_in_bucket(name)
            paths = [workdir / n for n in names] if names else sorted(workdir.rglob("*"))
            for path in paths:
                if not path.is_file() or path.name.startswith("."):
                    continue
                stamp = _stamp(path)
                if _sent.get(path) != stamp:
                    bucket.put_file(str(path), f"{root}/{path.relative_to(workdir).as_posix()}")
                    _sent[path] = stamp
    except ValueError as error:
        _log.warning("%s", error)
        return False
    return True


def close(workdir: Path, *, leads: bool = True) -> None:
    """Copy what is left to the bucket, if this process leads, and remove the local folder of a gs:// workdir."""
    if not (workdir / _HOME).is_file():
        return
    if not leads or push(workdir):
        shutil.rmtree(workdir, ignore_errors=True)
    else:
        _log.warning("what could not be copied is in %s", workdir)


def _bucket_files():
    """Return the file system of Google Cloud Storage, with no memory of what it listed before."""
    import gcsfs

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints the tracebacks of errors that it also raises
    return gcsfs.core.GCSFileSystem(use_listings_cache=False, requests_timeout=REQUEST_SECONDS)


def _path_in_bucket(name: str) -> str:
    """Return gs://BUCKET/FOLDER as gcsfs names it: BUCKET/FOLDER."""
    return name.removeprefix(SCHEME).strip("/")


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


@contextlib.contextmanager
def _said_in_one_line(argument: str, name: str):
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{argument}found no {error.name}, expected it: pip install gcsfs, for {name}") from error
    except Exception as error:  # of gcsfs, google.auth, aiohttp and requests, which have no common kind
        found = f"{name} out of reach ({first_line(error)})"
        raise ValueError(f"{argument}found {found}, expected a bucket to write to") from error
