"""Data sets by name, as arrays."""

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dualmcmc_jax.data import cache, images, tfds_images, toy2d

KINDS = f"'digits', 'toy2d:NAME' ({', '.join(toy2d.names())}), 'images:PATH', 'npz:PATH' or 'tfds:NAME'"


class Dataset(NamedTuple):
    """train and test examples: uint8 images [N, H, W, C], or float32 vectors [N, d]; perhaps memory-mapped."""

    train: np.ndarray
    test: np.ndarray


def load(data) -> Dataset:
    """The data set of a config's `data` section; decoded images are kept in the cache folder.

    Raises:
      ValueError: there is no such source, it cannot be read, or its examples have another shape.
    """
    kind, _, rest = data.source.partition(":")
    if data.source == "digits":
        dataset = _digits()
    elif kind == "toy2d" and rest in toy2d.names():
        dataset = _toy2d(rest)
    elif kind == "images" and rest:
        dataset = _images(_path(rest), data)
    elif kind == "npz" and rest:
        dataset = _npz(_path(rest))
    elif kind == "tfds" and rest:
        dataset = _tfds(rest, data)
    else:
        raise ValueError(f"data.source: found {data.source!r}, expected {KINDS}")
    if dataset.train.shape[1:] != tuple(data.shape):
        shape = dataset.train.shape[1:]
        raise ValueError(f"data.shape: found {tuple(data.shape)}, expected {shape}, that of {data.source!r}")
    return dataset


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser().resolve()
    except (RuntimeError, OSError) as error:  # no such user, links that go round
        raise ValueError(f"data.source: found {name}, expected a path: {error}") from error


def _digits() -> Dataset:
    """scikit-learn's 1,797 scans of handwritten digits, 8 x 8 in 17 grays: 1,500 to train, 297 to test."""
    from sklearn.datasets import load_digits

    order = np.random.RandomState(0).permutation(1797)
    pixels = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[order, :, :, None]
    return Dataset(pixels[:1500], pixels[1500:])


def _toy2d(name: str) -> Dataset:
    random, known = np.random.RandomState(0), toy2d.known(name)
    return Dataset(known.sample(random, 100_000), known.sample(random, 10_000))


def _images(path: Path, data) -> Dataset:
    """A folder tree or zip file of images: its train/ and test/ where it has both, else every tenth is for test."""
    files = images.list_files(path)
    if len(files) < 2:
        raise ValueError(f"data.source: found {len(files)} images in {path}, expected 2 or more of {images.SUFFIXES}")
    train, test = ([name for name in files if name.startswith(f"{split}/")] for split in Dataset._fields)
    if not (train and test):
        held_out = _held_out(len(files))
        train, test = ([name for name, out in zip(files, held_out, strict=True) if out == split] for split in (0, 1))
    shape = _image_shape(data)
    readers = lambda names: {name: lambda name=name: images.decode(files[name](), shape, data.crop) for name in names}
    key = _key(data) | {"path": str(path), "files": [(name, *images.stamp(path, name)) for name in files]}
    return Dataset(*cache.decoded(key, readers(train), readers(test), shape=shape, skip_bad=data.skip_bad))


def _tfds(name: str, data) -> Dataset:
    """An image data set of TensorFlow Datasets: its train split, and test or else validation."""
    shape = _image_shape(data)
    if found := cache.find(_key(data)):
        return Dataset(*found)
    readers = lambda split: {
        f"image {i}": lambda i=i: images.from_array(split[i]["image"], shape, data.crop) for i in range(len(split))
    }
    train, test = map(readers, tfds_images.open_splits(name))
    return Dataset(*cache.decoded(_key(data), train, test, shape=shape, skip_bad=data.skip_bad))


def _key(data) -> dict:
    return {"source": data.source, "shape": data.shape, "crop": data.crop, "skip_bad": data.skip_bad}


def _image_shape(data) -> tuple[int, int, int]:
    shape = tuple(data.shape)
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise ValueError(f"data.shape: found {shape}, expected (S, S, 1) or (S, S, 3) for {data.source!r}")
    return shape


def _held_out(num: int) -> np.ndarray:
    """Every tenth of num examples, or of fewer than ten the last: [num] bool."""
    index = np.arange(num)
    return index % 10 == 9 if num >= 10 else index == num - 1


def _npz(path: Path) -> Dataset:
    """Arrays from a .npz file: "train" and "test", or a single one of which every tenth example is for test."""
    if not path.is_file():
        raise ValueError(f"data.source: found no file {path}, expected a .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                images.check_compression(info)
                if not info.filename.endswith(".npy"):
                    raise ValueError(f"an entry {info.filename}")
            num_bytes, memory = sum(info.file_size for info in archive.infolist()), _physical_memory()
        if num_bytes > memory / 2:
            raise ValueError(f"{num_bytes / 1e9:.0f} GB, more than half of the {memory / 1e9:.0f} GB of memory")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # what is no array, numpy and zipfile refuse with a dozen kinds
        what = images.first_line(error)
        raise ValueError(f"data.source: found in {path}: {what}; expected a .npz file of plain arrays") from error
    if len(arrays) == 1:
        (x,) = arrays.values()
        held_out = _held_out(len(np.atleast_1d(x)))
        arrays = {"train": np.atleast_1d(x)[~held_out], "test": np.atleast_1d(x)[held_out]}
    if set(arrays) != {"train", "test"}:
        raise ValueError(f"data.source: found arrays {sorted(arrays)} in {path}, expected 'train' and 'test', or one")
    return Dataset(*(_examples(arrays[split], path) for split in Dataset._fields))


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _examples(x: np.ndarray, path: Path) -> np.ndarray:
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        return x[..., None] if x.ndim == 3 else x
    if np.issubdtype(x.dtype, np.floating) and x.ndim == 2:
        if not np.isfinite(x).all():
            raise ValueError(f"data.source: found NaN or infinite numbers in {path}, expected finite ones")
        return x.astype(np.float32)
    raise ValueError(
        f"data.source: found {x.dtype} {x.shape} in {path}, expected uint8 images [N, H, W, C] or float vectors [N, d]"
    )
