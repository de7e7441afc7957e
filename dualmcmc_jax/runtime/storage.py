"""Workdirs on Google Cloud Storage.

Checkpoints are written to the bucket directly. All other files are written to a local folder and copied to the bucket.
A workdir in a bucket has no lock, so do not start two runs with the same one.
"""

import contextlib
import logging
import shutil
import tempfile
from pathlib import Path

from dualmcmc_jax.data.images import first_line

SCHEME = "gs://"
ROWS = ("metrics.jsonl", "config.json", "digests.json")
"""The files that a resumed run needs besides a checkpoint. Upload them before each checkpoint."""
_HOME = ".home"  # name of the file in the local folder that holds the gs:// name of the workdir
_sent = {}  # {path: stamp of the version that is in the bucket}
REQUEST_SECONDS = 120
"""Timeout in seconds of a request to a bucket. Without it, a stalled request could block training."""
_log = logging.getLogger(__name__)


def open_workdir(name: str, *, argument: str = "workdir") -> Path:
    """Return the local folder of a workdir.

    Args:
      name: a local folder, or gs://BUCKET/FOLDER. The local folder of the latter is temporary and holds a copy of all
        files in the bucket except checkpoints.
      argument: the caller's name of this argument, for error messages.

    Raises:
      ValueError: the name is not a valid path or not in UTF-8, or the bucket cannot be used.
    """
    if not name.startswith(SCHEME):
        path = local_path(argument, name, expected="a local folder or gs://...")
        if not path.is_file():  # only weights files are read without Orbax
            _check_utf8(argument, str(path.absolute()))
        return path
    _check_utf8(argument, name)
    local = Path(tempfile.mkdtemp(prefix="dualmcmc_jax-"))
    try:
        with _one_line_errors(f"{argument}: ", name):
            _download(name, local)
    except ValueError:
        shutil.rmtree(local, ignore_errors=True)
        raise
    (local / _HOME).write_text(name)
    return local


def _check_utf8(argument: str, name: str) -> None:
    """Raise ValueError if a name is not in UTF-8. Orbax would fail to open its checkpoints, as if they were damaged."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{argument}: found {name!r}, expected a path in UTF-8") from error


def _download(name: str, local: Path) -> None:
    import fsspec
    from etils import epath

    # A cached listing would hide new checkpoints of other processes.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    bucket, root = _bucket_files(), _path_in_bucket(name)
    for remote in bucket.find(root):
        relative = remote.removeprefix(f"{root}/")
        path = local / relative
        if remote == root or remote.endswith("/") or Path(relative).parts[0] == "checkpoints":
            continue
        if not path.resolve().is_relative_to(local.resolve()):
            raise ValueError(f"an object with the unsafe name {relative}")
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket.get_file(remote, str(path))
        _sent[path] = _stamp(path)
    (epath.Path(name) / "checkpoints").is_dir()  # fails early if the library that Orbax uses cannot reach the bucket


def local_path(argument: str, name: str, *, expected: str = "a local folder") -> Path:
    """Return the local path of an argument's value, with ~ expanded. Raise ValueError if it is not a local path."""
    if "://" in name:
        raise ValueError(f"{argument}: found {name}, expected {expected}")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{argument}: found {name}, expected a path: {error}") from error


def check_writable(argument: str, folder: Path) -> None:
    """Check that files can be written to a folder, which need not exist. The check leaves nothing behind.

    Args:
      argument: the caller's name of the folder. The error message begins with it.
      folder: the folder.

    Raises:
      ValueError: the folder cannot be created, or no file can be written to it.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        found = f"{shown(folder)} ({error.strerror})"
        raise ValueError(f"{argument}: found {found}, expected a folder that can be written to") from error
    finally:
        for path in created:
            with contextlib.suppress(OSError):
                path.rmdir()


def home(workdir: Path):
    """Return the folder that contains checkpoints/: the workdir as an absolute path, or an epath.Path in its bucket."""
    if not (workdir / _HOME).is_file():
        return workdir.absolute()
    from etils import epath

    return epath.Path((workdir / _HOME).read_text())


def shown(path: Path) -> str:
    """Return a path for messages. The gs:// name replaces the temporary local folder of a gs:// workdir."""
    for folder in (path, *path.parents):
        if (folder / _HOME).is_file():
            name = (folder / _HOME).read_text().rstrip("/")
            return f"{name}/{path.relative_to(folder).as_posix()}".removesuffix("/.")
    return str(path)


def is_remote(folder) -> bool:
    """Return whether a folder that `home` returned is in a bucket."""
    return str(folder).startswith(SCHEME)


def push(workdir: Path, names: tuple[str, ...] | None = None) -> bool:
    """Copy new and changed files of a gs:// workdir to its bucket. Do nothing for a local workdir.

    Args:
      workdir: the local folder of the workdir.
      names: the files to copy; None: all files.

    Returns:
      Whether every file is in the bucket. A failure is logged as a warning, and the next call tries again.
    """
    if not (workdir / _HOME).is_file():
        return True
    name = (workdir / _HOME).read_text()
    try:
        with _one_line_errors("", name):
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


def close(workdir: Path, *, upload: bool = True) -> None:
    """Remove the local folder of a gs:// workdir. Do nothing for a local workdir.

    Args:
      workdir: the local folder of the workdir.
      upload: whether to copy new and changed files to the bucket first. If that fails, the folder is kept.
    """
    if not (workdir / _HOME).is_file():
        return
    if not upload or push(workdir):
        shutil.rmtree(workdir, ignore_errors=True)
    else:
        _log.warning("some files could not be copied to the bucket; they are kept in %s", workdir)


def _bucket_files():
    """Return the file system of Google Cloud Storage, without a cache of listings."""
    import gcsfs

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # gcsfs logs tracebacks of errors that it also raises
    return gcsfs.core.GCSFileSystem(use_listings_cache=False, requests_timeout=REQUEST_SECONDS)


def _path_in_bucket(name: str) -> str:
    """Return BUCKET/FOLDER, the name that gcsfs uses for gs://BUCKET/FOLDER."""
    return name.removeprefix(SCHEME).strip("/")


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


@contextlib.contextmanager
def _one_line_errors(argument: str, name: str):
    """Turn every error that bucket access raises into a ValueError with a one-line message."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{argument}found no package {error.name}, which {name} needs; install it by `pip install gcsfs`"
        ) from error
    except Exception as error:  # gcsfs, google.auth, aiohttp and requests have no common base class
        found = f"{name} unreachable ({first_line(error)})"
        raise ValueError(f"{argument}found {found}, expected a bucket that can be written to") from error
