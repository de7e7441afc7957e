"""The cache folder of the user. It holds decoded images as memory-mapped arrays, and small computed arrays."""

import atexit
import concurrent.futures
import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dualmcmc_jax.data.images import first_line

_log = logging.getLogger(__name__)
_DAMAGED = (ValueError, OSError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""The errors that NumPy raises for damaged files."""
CHECKSUMS = "checksums.json"
"""Name of the file in a cache entry that holds the SHA-256 of its files of images."""
_LASTING = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.EINVAL)
"""Error numbers of files that cannot be read tomorrow either: links to nothing, without permission, damaged zip files.

All others may be failures of a disk or a network, which say nothing about the file."""
Readers = dict[str, Callable[[], np.ndarray]]
"""{name of an image: function that reads and decodes the image}."""


def writable_folder(kind: str) -> Path | None:
    """Return a subfolder of the cache folder, $XDG_CACHE_HOME/dualmcmc_jax or by default ~/.cache/dualmcmc_jax.

    Return None, and log one warning per process, if the subfolder cannot be created or written to.
    """
    folder = _root() / kind
    try:
        if folder.parts[0] == "~":  # this user has no home folder
            raise OSError(errno.ENOENT, "no home folder")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        _warn_once(f"cache folder: found {folder} ({error.strerror}), expected one that can be written to")
        return None
    return folder


def _root() -> Path:
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "dualmcmc_jax")


def _path(kind: str, name: str) -> Path:
    """Return the path of a cached file or folder. If nothing can be cached, it is in a temporary folder."""
    path = _root() / kind / name
    return path if os.path.exists(path) else (writable_folder(kind) or _temporary_folder() / kind) / name


@functools.cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="dualmcmc_jax-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


_warned = []


def _warn_once(problem: str) -> None:
    if not _warned:
        _log.warning("%s; nothing is cached. XDG_CACHE_HOME can name another folder", problem)
        _warned.append(problem)


def find(key: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the memory-mapped training and test images of a key, or None if they are not in the cache.

    If the images in the cache are damaged, remove them and log a warning.
    """
    folder = _folder(key)
    if not folder.exists():
        return None
    try:
        return _images(folder)
    except _DAMAGED as error:
        _log.warning("%s: found damaged images (%s); they are decoded again", folder, first_line(error))
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Map the images of a cache entry. Raise ValueError if a file does not match its checksum.

    Entries of older versions have no checksums.
    """
    checksums = folder / CHECKSUMS
    if checksums.exists() and json.loads(checksums.read_text()) != _checksums(folder):
        raise ValueError(f"files that differ from {CHECKSUMS}")
    return np.load(folder / "train.npy", mmap_mode="r"), np.load(folder / "test.npy", mmap_mode="r")


def _checksums(folder: Path) -> dict[str, str]:
    """Return {name: SHA-256} of the files of images in a cache entry."""

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return {path.name: digest(path) for path in sorted(folder.glob("*.npy"))}


def decoded(
    key: Any, train: Readers, test: Readers, *, shape: tuple[int, int, int], skip_bad: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and test images of a key. Decode them first if they are not in the cache.

    Images are written to a temporary folder that is renamed when it is complete. An interrupted process therefore never
    leaves an incomplete cache entry, and several processes may decode the same images.

    Args:
      key: everything the images depend on, as JSON-serializable data.
      train: readers of the training images. A reader raises ValueError or OSError if it cannot read its image.
      test: readers of the test images.
      shape: shape of one image, (H, W, C).
      skip_bad: whether to leave out images that cannot be read.

    Returns:
      The training and test images, uint8 [N, H, W, C], memory-mapped.

    Raises:
      ValueError: there is no training or no held-out image that can be read, skip_bad is False and some images cannot
        be read, or the disk fails.
    """
    if (cached := find(key)) is not None:
        return cached
    folder = _folder(key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(".*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just renamed this folder
            if time.time() - leftover.stat().st_mtime > 86400:  # older than a day: its process was killed
                shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        bad_train, bad_test = _write(work / "train.npy", train, shape), _write(work / "test.npy", test, shape)
        bad, total = bad_train + bad_test, len(train) + len(test)
        problem = bad and f"{len(bad)} of {total} images that cannot be read, the first is {bad[0]}"
        if bad and not skip_bad:
            raise ValueError(f"data.source: found {problem}; expected none, or data.skip_bad=True to leave them out")
        for kind, bad_images, readers in (("training", bad_train, train), ("held-out", bad_test, test)):
            if len(bad_images) == len(readers):
                expected = f"one {kind} image or more that can be read"
                raise ValueError(f"data.source: found {problem or f'no {kind} images'}, expected {expected}")
        if bad:
            _log.warning("left out %s", problem)
        (work / CHECKSUMS).write_text(json.dumps(_checksums(work)))
        try:
            work.rename(folder)
        except OSError:
            if not folder.exists():  # if it exists, another process has written the same images
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _images(folder)


def _write(path: Path, readers: Readers, shape: tuple[int, int, int]) -> list[str]:
    """Decode images and write them to a .npy file. Return "name: reason" for each image that cannot be read."""

    def attempt(item):
        name, read = item
        try:
            return read()
        except (ValueError, OSError) as error:
            if getattr(error, "errno", None) not in _LASTING:
                found = f"{name} unreadable ({error.strerror})"
                raise ValueError(f"data.source: found {found}, expected a disk that can be read; try again") from error
            return f"{name}: {error}"

    items, bad, good = list(readers.items()), [], 0
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (len(items), *shape))
    if hasattr(os, "posix_fallocate"):  # reserve the space: on a full disk, writing to the map kills the process
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = (items[i : i + 256] for i in range(0, len(items), 256))
        results = (result for chunk in chunks for result in pool.map(attempt, chunk))
        for result in tqdm(results, total=len(items), unit="image", desc=f"decoding {path.stem}"):
            if isinstance(result, str):
                bad.append(result)
            else:
                out[good] = result
                good += 1
    if bad:
        np.save(path.with_name("good.npy"), out[:good])
        path.with_name("good.npy").replace(path)
    return bad


def _folder(key: Any) -> Path:
    return _path("data", _digest(key))


def arrays(kind: str, key: Any, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of a key. Compute and store them first if they are not in the cache.

    Args:
      kind: subfolder of the cache folder.
      key: everything the arrays depend on, as JSON-serializable data.
      make: computes the arrays, {name: array}.

    Returns:
      {name: array}.
    """
    path = _path(kind, f"{_digest(key)}.npz")
    if (stored := _stored(path)) is not None:
        return stored
    computed = make()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **computed)

    _store(path, write)
    return _load(path)


def file(kind: str, key: Any, write: Callable[[Path], None]) -> Path:
    """Return the file of a key. Write it first if it is not in the cache.

    Args:
      kind: subfolder of the cache folder.
      key: everything the content depends on, as JSON-serializable data.
      write: writes the content to a path. If it raises an error, nothing is stored.
    """
    path = _path(kind, _digest(key))
    if not path.exists():
        _store(path, write)
    return path


def _store(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under a temporary name, then rename it to `path`. If `write` raises an error, nothing is stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    os.close(descriptor)
    try:
        write(Path(temporary))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _stored(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file, or None if there is no file. If the file is damaged, remove it and log a warning."""
    if not path.exists():
        return None
    try:
        return _load(path)
    except _DAMAGED as error:
        _log.warning("%s: found a damaged file (%s); it is computed again", path, first_line(error))
        path.unlink()
        return None


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _digest(key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
