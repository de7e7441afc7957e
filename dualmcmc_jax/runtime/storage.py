"""Workdirs on Google Cloud Storage: checkpoints go there directly, all else by way of a local folder.

Nothing there keeps two runs from one workdir.
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
_log = logging.getLogger(__name__)


def open_workdir(name: str) -> Path:
    """The folder to work in: that of the name, or for a gs:// one a temporary copy of what is there but checkpoints.

    Raises:
      ValueError: the name is no path, or its bucket cannot be used.
    """
    if not name.startswith(SCHEME):
        return local_path("workdir", name)
    local = Path(tempfile.mkdtemp(prefix="dualmcmc_jax-"))
    try:
        with _said_in_one_line(name):
            _pull(name, local)
    except ValueError:
        shutil.rmtree(local, ignore_errors=True)
        raise
    (local / _HOME).write_text(name)
    return local


def _pull(name: str, local: Path) -> None:
    import fsspec
    from etils import epath
    from google.cloud import storage

    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False  # or others' checkpoints stay unseen
    prefix = _prefix(name)
    for blob in storage.Client().list_blobs(_bucket(name), prefix=prefix):
        path = local / blob.name.removeprefix(prefix)
        if blob.name.endswith("/") or path.relative_to(local).parts[0] == "checkpoints":
            continue
        if not path.resolve().is_relative_to(local.resolve()):
            raise ValueError(f"an object {blob.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(path)
        _sent[path] = _stamp(path)
    (epath.Path(name) / "checkpoints").is_dir()  # by the way that Orbax takes


def local_path(flag: str, name: str) -> Path:
    """A local path of a flag's value, ~ expanded; raises ValueError if it is none."""
    if "://" in name:
        raise ValueError(f"--{flag}: found {name}, expected a local folder" + " or gs://..." * (flag == "workdir"))
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ValueError(f"--{flag}: found {name}, expected a path: {error}") from error


def home(workdir: Path):
    """Where a workdir's checkpoints are: the workdir itself, as an absolute path, or an epath.Path of the bucket."""
    if not (workdir / _HOME).is_file():
        return workdir.absolute()
    from etils import epath

    return epath.Path((workdir / _HOME).read_text())


def shown(path: Path) -> str:
    """A path in a workdir as the user knows it."""
    for folder in (path, *path.parents):
        if (folder / _HOME).is_file():
            name = (folder / _HOME).read_text().rstrip("/")
            return f"{name}/{path.relative_to(folder).as_posix()}".removesuffix("/.")
    return str(path)


def is_remote(folder) -> bool:
    """Whether a folder, of what `home` returns, is in a bucket."""
    return str(folder).startswith(SCHEME)


def push(workdir: Path, names: tuple[str, ...] | None = None) -> bool:
    """Copies what is new or has changed in a workdir, of names if given, to its bucket; nothing if it has none.

    Returns whether all is there now; what is not is said in a warning, and is tried again the next time.
    """
    if not (workdir / _HOME).is_file():
        return True
    name = (workdir / _HOME).read_text()
    try:
        with _said_in_one_line(name):
            from google.cloud import storage

            bucket = storage.Client().bucket(_bucket(name))
            found = [workdir / n for n in names] if names else sorted(workdir.rglob("*"))
            for path in found:
                if not path.is_file() or path.name.startswith("."):
                    continue
                stamp = _stamp(path)
                if _sent.get(path) != stamp:
                    bucket.blob(_prefix(name) + path.relative_to(workdir).as_posix()).upload_from_filename(path)
                    _sent[path] = stamp
    except ValueError as error:
        _log.warning("%s", error)
        return False
    return True


def close(workdir: Path, *, leads: bool = True) -> None:
    """Copies what is left to the bucket, if this process leads, and removes the local folder of a gs:// workdir."""
    if not (workdir / _HOME).is_file():
        return
    if not leads or push(workdir):
        shutil.rmtree(workdir, ignore_errors=True)
    else:
        _log.warning("what could not be copied is in %s", workdir)


def _bucket(name: str) -> str:
    return name.removeprefix(SCHEME).partition("/")[0]


def _prefix(name: str) -> str:
    path = name.removeprefix(SCHEME).partition("/")[2].strip("/")
    return f"{path}/" if path else ""


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


@contextlib.contextmanager
def _said_in_one_line(name: str):
    try:
        yield
    except ImportError as error:
        problem = f"no {error.name}, expected it: pip install gcsfs"
        raise ValueError(f"--workdir: found {problem}, for {name}") from error
    except Exception as error:  # of google.auth, google.api_core, tensorflow and requests, which have no common kind
        found = f"{name} out of reach ({first_line(error)})"
        raise ValueError(f"--workdir: found {found}, expected a bucket to write to") from error
