"""What is made once and kept in the user's cache folder: decoded images, as memory-mapped arrays, and small arrays."""

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

_log = logging.getLogger(__name__)
Readers = dict[str, Callable[[], np.ndarray]]
"""{name of an image: function that reads and decodes it}."""


def root() -> Path:
    """$XDG_CACHE_HOME/dualmcmc_jax, by default ~/.cache/dualmcmc_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dualmcmc_jax"


def find(key: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """The train and test images kept under a key, memory-mapped; None if there are none."""
    folder = _folder(key)
    if not folder.exists():
        return None
    return np.load(folder / "train.npy", mmap_mode="r"), np.load(folder / "test.npy", mmap_mode="r")


def decoded(
    key: Any, train: Readers, test: Readers, *, shape: tuple[int, int, int], skip_bad: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The train and test images under a key, decoded now if they have not been before.

    They appear whole or not at all: a folder half-written, by a process killed or one that works beside this one, is
    never seen under the key's name.

    Args:
      key: all that the images depend on, as JSON.
      train: images; a reader raises ValueError or OSError for one it cannot read.
      test: images likewise.
      shape: of one, [H, W, C].
      skip_bad: leave out those that cannot be read.

    Returns:
      uint8 [N, H, W, C] twice, memory-mapped.

    Raises:
      ValueError: some images cannot be read and skip_bad is False, or none can.
    """
    folder = _folder(key)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(".*"):
            with contextlib.suppress(FileNotFoundError):  # by a process beside this one, which has finished
                if time.time() - left.stat().st_mtime > 86400:  # by one that was killed
                    shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            bad = _write(work / "train.npy", train, shape) + _write(work / "test.npy", test, shape)
            total = len(train) + len(test)
            what = bad and f"{len(bad)} of {total} images that cannot be read, the first {bad[0]}"
            if bad and (len(bad) == total or not skip_bad):
                raise ValueError(f"data.source: found {what}; expected none, or data.skip_bad=True to leave them out")
            if bad:
                _log.warning("left out: %s", what)
            try:
                work.rename(folder)
            except OSError:
                if not folder.exists():  # else a process beside this one was quicker
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return find(key)


def _write(path: Path, readers: Readers, shape: tuple[int, int, int]) -> list[str]:
    """Decodes into a .npy file, without the images that cannot be; returns "name: reason" of those."""

    def attempt(item):
        name, read = item
        try:
            return read()
        except (ValueError, OSError) as error:
            return f"{name}: {error}"

    items, bad, good = list(readers.items()), [], 0
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (len(items), *shape))
    if hasattr(os, "posix_fallocate"):  # on a full disk, writing to the map would end the process
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
    return root() / "data" / _digest(key)


def arrays(kind: str, key: Any, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays by name under (kind, key), made now if they have not been before; they appear whole or not at all."""
    path = root() / kind / f"{_digest(key)}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        with tempfile.NamedTemporaryFile(prefix=".", suffix=".npz", dir=path.parent, delete=False) as file:
            try:
                np.savez(file, **made)
            except BaseException:
                os.unlink(file.name)
                raise
        os.replace(file.name, path)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _digest(key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
