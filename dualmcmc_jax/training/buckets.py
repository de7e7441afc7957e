"""Workdirs on Google Cloud Storage: checkpoints go there directly, all else by way of a local folder."""

import atexit
import contextlib
import shutil
import tempfile
from pathlib import Path

from dualmcmc_jax.data.images import first_line

SCHEME = "gs://"
_HOME = ".home"  # a file of the local folder: where the workdir really is
_sent = {}


def open_workdir(name: str) -> Path:
    """The folder to work in: that of the name, or for a gs:// one a temporary copy of what is there but checkpoints.

    Raises:
      ValueError: the bucket cannot be used.
    """
    if not name.startswith(SCHEME):
        return Path(name).expanduser()
    local = Path(tempfile.mkdtemp(prefix="dualmcmc_jax-"))
    atexit.register(shutil.rmtree, local, ignore_errors=True)
    with _said_in_one_line(name):
        import fsspec
        from google.cloud import storage

        fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False  # or others' checkpoints stay unseen
        prefix = _prefix(name)
        for blob in storage.Client().get_bucket(_bucket(name)).list_blobs(prefix=prefix):
            path = local / blob.name.removeprefix(prefix)
            if blob.name.endswith("/") or path.relative_to(local).parts[0] == "checkpoints":
                continue
            if not path.resolve().is_relative_to(local.resolve()):
                raise ValueError(f"an object {blob.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            blob.download_to_filename(path)
            _sent[path] = _stamp(path)
    (local / _HOME).write_text(name)
    return local


def home(workdir: Path):
    """Where a workdir's checkpoints are: the workdir itself, as an absolute path, or an epath.Path of the bucket."""
    try:
        name = (workdir / _HOME).read_text()
    except OSError:
        return workdir.absolute()
    from etils import epath

    return epath.Path(name)


def shown(path: Path) -> str:
    """A path in a workdir as the user knows it."""
    for folder in (path, *path.parents):
        if (folder / _HOME).is_file():
            return f"{(folder / _HOME).read_text().rstrip('/')}/{path.relative_to(folder).as_posix()}".removesuffix(
                "/."
            )
    return str(path)


def is_remote(folder) -> bool:
    """Whether a folder, of what `home` returns, is in a bucket."""
    return str(folder).startswith((SCHEME, "/gs/"))


def push(workdir: Path) -> None:
    """Copies what is new or has changed in a workdir to its bucket; nothing if it has none.

    Raises:
      ValueError: the bucket cannot be written to.
    """
    try:
        name = (workdir / _HOME).read_text()
    except OSError:
        return
    with _said_in_one_line(name):
        from google.cloud import storage

        bucket = storage.Client().bucket(_bucket(name))
        for path in sorted(path for path in workdir.rglob("*") if path.is_file() and not path.name.startswith(".")):
            stamp = _stamp(path)
            if _sent.get(path) != stamp:
                bucket.blob(_prefix(name) + path.relative_to(workdir).as_posix()).upload_from_filename(path)
                _sent[path] = stamp


def _bucket(name: str) -> str:
    return name.removeprefix(SCHEME).partition("/")[0]


def _prefix(name: str) -> str:
    return name.removeprefix(SCHEME).partition("/")[2].strip("/") + "/"


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


@contextlib.contextmanager
def _said_in_one_line(name: str):
    try:
        yield
    except ImportError as error:
        problem = f"no {error.name}, expected it: pip install google-cloud-storage"
        raise ValueError(f"--workdir: found {problem}, for {name}") from error
    except Exception as error:  # of google.auth, google.api_core and requests, which have no common kind
        raise ValueError(
            f"--workdir: found {name} out of reach ({first_line(error)}), expected a bucket to write to"
        ) from error
