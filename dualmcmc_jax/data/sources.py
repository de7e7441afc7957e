"""The table of data sources, and the data sets they load as arrays."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dualmcmc_jax.data import cache, images, tfds_images, toy2d

SPLITS = ("train", "test")


class Dataset(NamedTuple):
    """A data set.

    Attributes:
      train: the training examples, uint8 images [N, H, W, C] or float32 vectors [N, d]. They may be memory-mapped.
      test: the held-out examples, of the same kind.
      name: the `data.source` of the examples, such as "toy2d:rings".
      value_range: (low, high) of each coordinate as the networks see it, or None if unknown. The range of images is
        (-1, 1). The range of a toy density is a square outside which the density is negligible.
      density: the ground-truth density, or None if unknown.
      train_labels: the class of each training example, integers [N]; None if the data have no classes.
      test_labels: the class of each held-out example, integers [N]; None if the data have no classes.
      classifier: name of the classifier in `features.classifiers` that scores samples of these data; "" for none.
    """

    train: np.ndarray
    test: np.ndarray
    name: str = ""
    value_range: tuple[float, float] | None = None
    density: toy2d.Density | None = None
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    classifier: str = ""


class Source(NamedTuple):
    """A row of the table of sources.

    Attributes:
      load: (text after the colon of `data.source`, the config's `data` section) -> `Dataset`.
      usage: how to write this source in `data.source`, for error messages and the help.
      argument: (text after the colon) -> whether the text is valid.
      num_train: number of training examples if all data sets of this source have the same number, else None.
    """

    load: Callable[[str, ConfigDict], Dataset]
    usage: str
    argument: Callable[[str], bool] = bool
    num_train: int | None = None


def load(data: ConfigDict) -> Dataset:
    """Load the data set of a config's `data` section. Decoded images are stored in the cache folder.

    Raises:
      ValueError: the source is unknown or cannot be read, or the shape of its examples is not `data.shape`.
    """
    source, argument = _row(data)
    if source is None:
        raise ValueError(f"data.source: found {data.source!r}, expected {kinds()}")
    dataset = source.load(argument, data)
    if dataset.train.shape[1:] != tuple(data.shape):
        shape = dataset.train.shape[1:]
        raise ValueError(f"data.shape: found {tuple(data.shape)}, expected {shape}, the shape of {data.source!r}")
    is_image = dataset.train.dtype == np.uint8
    return dataset._replace(name=data.source, value_range=(-1.0, 1.0) if is_image else dataset.value_range)


def num_train(data: ConfigDict) -> int | None:
    """Return the number of training examples of a `data` section, or None if it is known only after loading."""
    source, _ = _row(data)
    return source and source.num_train


def kinds() -> str:
    """Return a list of all values of `data.source`, for error messages and the help."""
    *usages, last = (source.usage for source in SOURCES.values())
    return f"{', '.join(usages)} or {last}"


def _row(data: ConfigDict) -> tuple[Source | None, str]:
    """Return the row of `data.source`, or None if there is no such source, and the text after the colon."""
    kind, colon, argument = data.source.partition(":")
    source = SOURCES.get(kind)
    if source and (not source.argument(argument) or bool(colon) != bool(argument)):
        source = None
    return source, argument


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser().resolve()
    except (RuntimeError, OSError) as error:  # no such user, or a loop of links
        raise ValueError(f"data.source: found {name}, expected a path: {error}") from error


def _digits(_, data: ConfigDict) -> Dataset:
    """Load scikit-learn's 1,797 digits of 8 x 8 pixels with 17 gray levels: 1,500 for training, 297 held out."""
    from sklearn.datasets import load_digits

    digits, order = load_digits(), np.random.RandomState(0).permutation(1797)
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[order, :, :, None]
    labels = digits.target[order]
    return Dataset(
        pixels[:1500], pixels[1500:], train_labels=labels[:1500], test_labels=labels[1500:], classifier="digits"
    )


def _toy2d(name: str, data: ConfigDict) -> Dataset:
    """Draw 100,000 training and 10,000 held-out points from a two-dimensional density."""
    random, density = np.random.RandomState(0), toy2d.density(name)
    train, test = density.sample(random, 100_000), density.sample(random, 10_000)
    return Dataset(train, test, value_range=(-density.half_width, density.half_width), density=density)


def _images(name: str, data: ConfigDict) -> Dataset:
    """Decode the images of a folder tree or zip file. Without train/ and test/, every tenth image is held out."""
    path = _path(name)
    files = images.list_files(path)
    if len(files) < 2:
        expected = f"2 or more files that end in {', '.join(images.SUFFIXES)}"
        raise ValueError(f"data.source: found {len(files)} images in {path}, expected {expected}")
    train, test = ([name for name in files if name.startswith(f"{split}/")] for split in SPLITS)
    if not (train and test):
        held_out = _held_out(len(files))
        train, test = ([name for name, out in zip(files, held_out, strict=True) if out == split] for split in (0, 1))
    shape = _image_shape(data)
    readers = lambda names: {name: lambda name=name: images.decode(files[name](), shape, data.crop) for name in names}
    key = _key(data) | {"path": str(path), "files": [(name, *images.stamp(path, name)) for name in files]}
    return Dataset(*cache.decoded(key, readers(train), readers(test), shape=shape, skip_bad=data.skip_bad))


def _tfds(name: str, data: ConfigDict) -> Dataset:
    """Decode an image data set of TensorFlow Datasets. Without a test split, the validation split is held out."""
    shape = _image_shape(data)
    if cached := cache.find(_key(data)):
        return Dataset(*cached)
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
    """Return which examples to hold out, [num] bool: every tenth, or the last one if there are fewer than ten."""
    index = np.arange(num)
    return index % 10 == 9 if num >= 10 else index == num - 1


def _npz(name: str, data: ConfigDict) -> Dataset:
    """Read the arrays "train" and "test" of a .npz file. If it has one array, hold out every tenth example."""
    path = _path(name)
    if not path.is_file():
        raise ValueError(f"data.source: found no file {path}, expected a .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                images.check_compression(info)
                if not info.filename.endswith(".npy"):
                    raise ValueError(f"an entry {info.filename}, which is not an array")
            num_bytes, memory = sum(info.file_size for info in archive.infolist()), _physical_memory()
        if num_bytes > memory / 2:
            raise ValueError(f"{num_bytes / 1e9:.0f} GB, more than half of the {memory / 1e9:.0f} GB of memory")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise many types of errors for invalid files
        problem = images.first_line(error)
        raise ValueError(
            f"data.source: found {path} unreadable ({problem}), expected a .npz file of plain arrays"
        ) from error
    if len(arrays) == 1:
        (x,) = arrays.values()
        held_out = _held_out(len(np.atleast_1d(x)))
        arrays = {"train": np.atleast_1d(x)[~held_out], "test": np.atleast_1d(x)[held_out]}
    if set(arrays) != set(SPLITS):
        raise ValueError(
            f"data.source: found arrays {sorted(arrays)} in {path}, expected 'train' and 'test', or one array"
        )
    return Dataset(*(_examples(arrays[split], path) for split in SPLITS))


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _examples(x: np.ndarray, path: Path) -> np.ndarray:
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        return x[..., None] if x.ndim == 3 else x
    if np.issubdtype(x.dtype, np.floating) and x.ndim == 2:
        if not np.isfinite(x).all():
            raise ValueError(f"data.source: found NaN or infinite numbers in {path}, expected finite numbers")
        return x.astype(np.float32)
    raise ValueError(
        f"data.source: found {x.dtype} {x.shape} in {path}, expected uint8 images [N, H, W, C] or float vectors [N, d]"
    )


SOURCES = {
    "digits": Source(_digits, "'digits'", argument=lambda text: not text, num_train=1500),
    "toy2d": Source(_toy2d, f"'toy2d:NAME' ({', '.join(toy2d.names())})", toy2d.names().__contains__, 100_000),
    "images": Source(_images, "'images:PATH'"),
    "npz": Source(_npz, "'npz:PATH'"),
    "tfds": Source(_tfds, "'tfds:NAME'"),
}
"""The data sources. Each key is the part of `data.source` before the colon. To add one, add a function and a row."""
