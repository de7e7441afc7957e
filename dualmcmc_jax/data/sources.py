"""The table of data sources, and the data sets they load as arrays."""

import concurrent.futures
import contextlib
import hashlib
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dualmcmc_jax import own_code
from dualmcmc_jax.data import cache, images, splits, tfds_images, toy2d
from dualmcmc_jax.spelling import did_you_mean, question

_log = logging.getLogger(__name__)
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
      notes: a phrase that says how the examples were divided, and how many files were skipped and why; "" for none.
    """

    train: np.ndarray
    test: np.ndarray
    name: str = ""
    value_range: tuple[float, float] | None = None
    density: toy2d.Density | None = None
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    classifier: str = ""
    notes: str = ""


class Source(NamedTuple):
    """A row of the table of sources.

    Attributes:
      load: (text after the colon of `data.source`, the config's `data` section) -> `Dataset`.
      usage: how to write this source in `data.source`, for error messages and the help.
      argument: (text after the colon) -> whether the text is valid.
      num_train: number of training examples if all data sets of this source have the same number, else None.
      is_path: whether the text after the colon is the path of a file or folder.
    """

    load: Callable[[str, ConfigDict], Dataset]
    usage: str
    argument: Callable[[str], bool] = bool
    num_train: int | None = None
    is_path: bool = False


def load(data: ConfigDict) -> Dataset:
    """Load the data set of a config's `data` section. Decoded images are stored in the cache folder.

    Raises:
      ValueError: the source is unknown or cannot be read, or the shape of its examples is not `data.shape`.
    """
    source, argument = _row(data)
    if source is None:
        raise ValueError(f"data.source: found {data.source!r}, expected {kinds()}{_nearest(data.source)}")
    dataset = source.load(argument, data)
    _check_splits(dataset, data.source)
    if dataset.train.shape[1:] != tuple(data.shape):
        shape = dataset.train.shape[1:]
        raise ValueError(f"data.shape: found {tuple(data.shape)}, expected {shape}, the shape of {data.source!r}")
    is_image = dataset.train.dtype == np.uint8
    _warn_of_dark(dataset[:2], data.source)
    return dataset._replace(name=data.source, value_range=(-1.0, 1.0) if is_image else dataset.value_range)


def load_all(name: str, data: ConfigDict, *, argument: str) -> tuple[np.ndarray, list[str]]:
    """Load all examples of a folder, a zip file, a .npz file or a data source, in one array.

    Images are cropped and resized as `data` says. They are not written to the cache folder.

    Args:
      name: a path, or a value of `data.source`. The examples of both splits are returned.
      data: the config's `data` section.
      argument: the caller's name of the argument, for error messages.

    Returns:
      The examples, uint8 images [N, H, W, C] or float32 vectors [N, d], and N names: file names or numbers.

    Raises:
      ValueError: there are no examples, some cannot be read, or their shape is not `data.shape`.
    """
    try:
        path = _path(name)
        if path.is_dir() or (path.is_file() and path.suffix.lower() != ".npz"):
            return _all_images(path, data)
        if path.is_file():
            arrays = [*_npz_arrays(path).values()]
        else:
            data = data.copy_and_resolve_references()
            data.source = name
            if _row(data)[0] is None:
                expected = "a folder, a zip file, a .npz file or a data source such as digits"
                raise ValueError(f"data.source: found nothing at {name}, expected {expected}")
            arrays = load(data)[:2]
        shapes = {array.shape[1:] for array in arrays}
        if shapes != {tuple(data.shape)}:
            found = ", ".join(map(str, sorted(shapes)))
            raise ValueError(f"data.source: found examples of shape {found}, expected {tuple(data.shape)}, data.shape")
        x = np.concatenate(arrays)
    except ValueError as error:
        raise ValueError(str(error).replace("data.source: ", f"{argument}: ", 1)) from error
    if not len(x):
        raise ValueError(f"{argument}: found no examples in {name}, expected 1 or more")
    if path.is_file():  # `load` has checked the others
        _warn_of_dark([x], name, argument=argument)
    return x, [str(i) for i in range(len(x))]


def _all_images(path: Path, data: ConfigDict) -> tuple[np.ndarray, list[str]]:
    shape, files = _image_shape(data), images.list_files(path)
    names = [name for name in files if images.is_image(name)]

    def attempt(name: str) -> np.ndarray | str:
        try:
            return images.decode(files[name](), shape, data.crop)
        except (ValueError, OSError) as error:
            return f"{name}: {error}"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(names, pool.map(attempt, names), strict=True))
    good = {name: result for name, result in results.items() if not isinstance(result, str)}
    bad = [result for result in results.values() if isinstance(result, str)]
    if bad and not data.skip_bad:
        problem = f"{len(bad)} of {len(names)} images that cannot be read, the first is {bad[0]}"
        raise ValueError(f"data.source: found {problem}; expected none, or data.skip_bad=True to leave them out")
    if not good:
        expected = f"1 or more files that end in {', '.join(images.SUFFIXES)}"
        raise ValueError(f"data.source: found no images in {path}, expected {expected}")
    return np.stack([*good.values()]), [*good]


def describe(dataset: Dataset) -> str:
    """Return one line that says how many examples of which shape a data set has, their source, and its notes."""
    shape = " x ".join(map(str, dataset.train.shape[1:]))
    kind = f"images of {shape}" if dataset.train.dtype == np.uint8 else f"vectors of {shape} numbers"
    notes = dataset.notes and f" ({dataset.notes})"
    return f"{len(dataset.train):,} {kind} to train, {len(dataset.test):,} held out, from {dataset.name}{notes}"


def digests(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return {"train" or "test": {"examples": number of examples, "sha256": digest of the array}}.

    For examples drawn from a density, return {}: they cannot change, but their last bits may differ between processors.
    """
    if dataset.density:
        return {}
    return {split: {"examples": len(x), "sha256": _digest(x)} for split, x in zip(SPLITS, dataset[:2], strict=True)}


def _digest(x: np.ndarray) -> str:
    digest = hashlib.sha256(f"{x.dtype} {x.shape}".encode())
    for start in range(0, len(x), 1024):  # x may be larger than the memory
        digest.update(np.ascontiguousarray(x[start : start + 1024]))
    return digest.hexdigest()


def _warn_of_dark(arrays: Iterable[np.ndarray], name: str, *, argument: str = "data.source") -> None:
    """Log a warning if no pixel of images is brighter than 1, as in images whose largest value stands for white."""
    chunks = (x[start : start + 1024] for x in arrays for start in range(0, len(x), 1024))  # as in `_digest`
    if all(chunk.dtype == np.uint8 and (chunk <= 1).all() for chunk in chunks):
        found = f"only pixels of 0 and 1 in {name}, which are almost black"
        _log.warning("%s: found %s, expected 0 to 255; they are used as they are", argument, found)


def _check_splits(dataset: Dataset, source: str) -> None:
    """Raise ValueError unless both splits have examples, which have the same shape and dtype."""
    for split, x in zip(SPLITS, dataset[:2], strict=True):
        if not x.size:
            raise ValueError(f"data.source: found {_kind(x)} in {split!r} of {source!r}, expected 1 example or more")
    train, test = dataset[:2]
    if (train.shape[1:], train.dtype) != (test.shape[1:], test.dtype):
        found, expected = (f"examples of {x.dtype} {x.shape[1:]}" for x in (test, train))
        raise ValueError(f"data.source: found {found} in 'test' of {source!r}, expected {expected} as in 'train'")


def _kind(x: np.ndarray) -> str:
    return f"{x.dtype} {x.shape}"


def num_train(data: ConfigDict) -> int | None:
    """Return the number of training examples of a `data` section, or None if it is known only after loading."""
    source, _ = _row(data)
    return source and source.num_train


def same(first: str, second: str) -> bool:
    """Return whether two values of `data.source` are equal, or of one kind with paths of the same file or folder."""
    (kind, _, path), (other_kind, _, other_path) = (str(text).partition(":") for text in (first, second))
    if not {kind, other_kind} & SOURCES.keys():
        return first == second or own_code.same(first, second)
    if first == second or kind != other_kind or kind not in SOURCES or not SOURCES[kind].is_path:
        return first == second
    try:
        return _path(path) == _path(other_path)
    except ValueError:
        return False


def kinds() -> str:
    """Return a list of all values of `data.source`, for error messages and the help."""
    *usages, last = (source.usage for source in SOURCES.values())
    return f"{', '.join(usages)} or {last}"


def _row(data: ConfigDict) -> tuple[Source | None, str]:
    """Return the row of `data.source`, or None if there is no such source, and the text after the colon.

    A function of the user, MODULE:FUNCTION or FILE.py:FUNCTION, has a row of its own, and its whole name is the text.
    """
    kind, colon, argument = data.source.partition(":")
    if kind not in SOURCES and own_code.is_name(data.source):
        return Source(_own, ""), data.source
    source = SOURCES.get(kind)
    if source and (not source.argument(argument) or bool(colon) != bool(argument)):
        source = None
    return source, argument


def _nearest(text: str) -> str:
    """Return a question that names the value of `data.source` that a path or a misspelt value resembles."""
    kind, _, argument = text.partition(":")
    with contextlib.suppress(ValueError, OSError):  # such as a text with a null character
        path = _path(text)
        if path.exists():
            return question([f"{'npz' if path.suffix.lower() == '.npz' else 'images'}:{text}"])
    names = [f"{name}:{argument}" if argument else name for name in SOURCES if name != kind]
    return did_you_mean(text, [*names, *(f"toy2d:{name}" for name in toy2d.names())])


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
    """Decode the images of a folder tree or zip file, divided by `splits.split`."""
    path = _path(name)
    files = images.list_files(path)
    others = Counter(Path(name).suffix.lower() or "no suffix" for name in files if not images.is_image(name))
    files = {name: read for name, read in files.items() if images.is_image(name)}
    if len(files) < 2:
        expected = f"2 or more files that end in {', '.join(images.SUFFIXES)}"
        raise ValueError(f"data.source: found {len(files)} images in {path}, expected {expected}")
    try:
        train, test, how = splits.split(list(files))
    except ValueError as error:
        raise ValueError(f"data.source: found in {path} {error}") from error
    shape = _image_shape(data)
    readers = lambda names: {name: lambda name=name: images.decode(files[name](), shape, data.crop) for name in names}
    stamps = [(name, *images.stamp(path, name)) for name in files]
    key = _key(data) | {"path": str(path), "files": stamps, "held out": test}
    arrays = cache.decoded(key, readers(train), readers(test), shape=shape, skip_bad=data.skip_bad)
    bad = len(train) + len(test) - sum(map(len, arrays))
    skipped = [f"{bad:,} unreadable"] * bool(bad) + [f"{num:,} with {suffix}" for suffix, num in others.most_common(3)]
    if len(others) > 3:
        skipped.append(f"{sum(others.values()) - sum(num for _, num in others.most_common(3)):,} with other suffixes")
    skips = f"; skipped {sum(others.values()) + bad:,} files: {', '.join(skipped)}" if skipped else ""
    return Dataset(*arrays, notes=how + skips)


def _tfds(name: str, data: ConfigDict) -> Dataset:
    """Decode an image data set of TensorFlow Datasets.

    The test split is held out, or else the validation split. If there is neither, every tenth image is held out.
    """
    shape = _image_shape(data)
    if cached := cache.find(_key(data)):
        return Dataset(*cached)
    readers = lambda split, indices: {
        f"image {i}": lambda i=i: images.from_array(split[i]["image"], shape, data.crop) for i in indices
    }
    train, test = tfds_images.open_splits(name)
    if test is None:
        held_out = splits.every_tenth(len(train))
        parts = [readers(train, np.flatnonzero(~held_out).tolist()), readers(train, np.flatnonzero(held_out).tolist())]
    else:
        parts = [readers(train, range(len(train))), readers(test, range(len(test)))]
    return Dataset(*cache.decoded(_key(data), *parts, shape=shape, skip_bad=data.skip_bad))


def _key(data) -> dict:
    return {"source": data.source, "shape": data.shape, "crop": data.crop, "skip_bad": data.skip_bad}


def _image_shape(data) -> tuple[int, int, int]:
    shape = tuple(data.shape)
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise ValueError(f"data.shape: found {shape}, expected (S, S, 1) or (S, S, 3) for {data.source!r}")
    return shape


def _own(name: str, data: ConfigDict) -> Dataset:
    """Call a function of the user, which returns a `Dataset`, or training and held-out examples as two arrays."""
    try:
        function = own_code.find("data.source", name)
    except ValueError as error:
        raise ValueError(f"{error}; the other sources are {kinds()}{_nearest(name)}") from error
    try:
        dataset = function(data)
    except Exception as error:
        raise ValueError(f"data.source: found {own_code.problem(error)}, expected no error in {name}(data)") from error
    if not isinstance(dataset, Dataset):
        if not (isinstance(dataset, tuple | list) and len(dataset) == 2):
            found = f"{type(dataset).__name__} from {name}"
            raise ValueError(f"data.source: found {found}, expected a Dataset, or arrays (train, test)")
        dataset = Dataset(*dataset)
    arrays = {split: np.asarray(x) for split, x in zip(SPLITS, dataset[:2], strict=True)}
    return dataset._replace(**{split: _examples(x, f"{split!r} of {name}") for split, x in arrays.items()})


def _npz(name: str, data: ConfigDict) -> Dataset:
    """Read the arrays "train" and "test" of a .npz file. If it has one array, hold out every tenth example."""
    path = _path(name)
    if not path.is_file():
        raise ValueError(f"data.source: found no file {path}, expected a .npz file")
    arrays, notes = _npz_arrays(path), ""
    if len(arrays) == 1:
        ((name, x),) = arrays.items()
        held_out, notes = splits.every_tenth(len(x)), f"every tenth of array {name!r} held out"
        arrays = {"train": x[~held_out], "test": x[held_out]}
    return Dataset(arrays["train"], arrays["test"], notes=notes)


def _npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays "train" and "test" of a .npz file, or its only array, as examples."""
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
            names = file.files
            arrays = {name: file[name] for name in names} if len(names) == 1 or set(names) == {*SPLITS} else {}
    except Exception as error:  # numpy and zipfile raise many types of errors for invalid files
        problem = images.first_line(error)
        raise ValueError(
            f"data.source: found {path} unreadable ({problem}), expected a .npz file of plain arrays"
        ) from error
    if not arrays:
        found = f"arrays {', '.join(map(repr, sorted(names))) or 'none'} in {path}"
        raise ValueError(f"data.source: found {found}, expected 'train' and 'test', or one array")
    return {name: _examples(np.atleast_1d(x), f"array {name!r} of {path}") for name, x in arrays.items()}


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _examples(x: np.ndarray, name: str) -> np.ndarray:
    """Check an array of a .npz file. Return it as uint8 [N, H, W, C] or float32 [N, d]."""
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        x = x[..., None] if x.ndim == 3 else x
        if x.shape[-1] in (1, 3):
            return x
        if x.shape[1] in (1, 3):
            found = f"{_kind(x)} in {name}, whose channels come first"
            raise ValueError(f"data.source: found {found}, expected [N, H, W, C]: use numpy.moveaxis(x, 1, -1)")
    if np.issubdtype(x.dtype, np.floating) and x.ndim == 2:
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ValueError(
                f"data.source: found NaN or infinite numbers in {name}, expected finite numbers of float32"
            )
        return x
    expected = "uint8 images [N, H, W], [N, H, W, 1] or [N, H, W, 3], or float vectors [N, d]"
    raise ValueError(f"data.source: found {_kind(x)} in {name}, expected {expected}")


SOURCES = {
    "digits": Source(_digits, "'digits'", argument=lambda text: not text, num_train=1500),
    "toy2d": Source(_toy2d, f"'toy2d:NAME' ({', '.join(toy2d.names())})", toy2d.names().__contains__, 100_000),
    "images": Source(_images, "'images:PATH'", is_path=True),
    "npz": Source(_npz, "'npz:PATH'", is_path=True),
    "tfds": Source(_tfds, "'tfds:NAME'"),
}
"""The data sources. Each key is the part of `data.source` before the colon. To add one, add a function and a row."""
