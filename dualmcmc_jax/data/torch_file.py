"""PyTorch's .pth files as NumPy arrays, without torch and without running what is pickled in them."""

import collections
import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""Magic number and version of the format before PyTorch 1.6."""


def load(path: Path) -> Any:
    """What torch.save wrote: tensors as arrays, inside dicts, lists, tuples, numbers and strings.

    Files of every PyTorch version are read: the zip format, and the one before 1.6. Any other object is refused by its
    name, unseen; nothing from the file is ever called. Memory is bounded by the size of the file and of its arrays.

    Raises:
      ValueError: it is not such a file, is damaged, or holds something else than tensors.
    """
    problem = lambda what: ValueError(f"{path}: found {what}, expected a file of tensors written by torch.save")
    if not path.is_file():
        raise ValueError(f"{path}: found no such file, expected one written by torch.save")
    try:
        return (_load_zip if zipfile.is_zipfile(path) else _load_legacy)(path)
    except RecursionError as error:
        raise problem("endless nesting") from error
    except (zipfile.BadZipFile, EOFError, KeyError, IndexError, TypeError, AttributeError, MemoryError) as error:
        raise problem(f"a damaged file ({type(error).__name__})") from error
    except (pickle.UnpicklingError, struct.error, ValueError, OverflowError, NotImplementedError) as error:
        raise problem(str(error).splitlines()[0] if str(error) else "a damaged file") from error


class _Storage:
    """A flat array that a tensor is a view of; filled, in the legacy format, after the tensors are known."""

    def __init__(self, dtype, size: int):
        self.dtype, self.size, self.array = np.dtype(dtype), size, None

    def fill(self, data: bytes) -> None:
        if len(data) != self.size * self.dtype.itemsize:
            raise ValueError(f"{len(data)} bytes of a storage of {self.size * self.dtype.itemsize}")
        self.array = np.frombuffer(data, self.dtype)


class _Tensor:
    """A view of a storage, made into an array when the storage has been read."""

    def __init__(self, storage, offset, shape, strides, *_):
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)
        numbers = (offset, *self.shape, *self.strides)
        if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor that is no view of a storage")
        last = offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        count = math.prod(self.shape)
        if count and (last >= storage.size or count > storage.size):
            raise ValueError(f"a tensor of shape {self.shape} outside its storage of {storage.size}")

    def array(self) -> np.ndarray:
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.storage.dtype)
        strides = [s * self.storage.dtype.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(self.storage.array[self.offset :], self.shape, strides).copy()


def _parameter(data, *_):
    return data


_ADMITTED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
} | {("torch", name): (name, dtype) for name, dtype in _STORAGES.items()}


class _Unpickler(pickle.Unpickler):
    """Knows the names in _ADMITTED alone, so that a pickle can build tensors and containers and nothing else."""

    def __init__(self, file, storages: dict[str, _Storage]):
        super().__init__(file, encoding="latin-1")
        self.storages = storages

    def find_class(self, module, name):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise ValueError(f"the object {module}.{name}") from None

    def persistent_load(self, saved):
        kind, (_, dtype), key, _, size, *view = saved
        if kind != "storage" or type(size) is not int or size < 0 or any(part is not None for part in view):
            raise ValueError("a storage that is none")
        storage = self.storages.setdefault(str(key), _Storage(dtype, size))
        if (storage.dtype, storage.size) != (np.dtype(dtype), size):
            raise ValueError(f"two storages called {key}")
        return storage


def _load_zip(path: Path) -> Any:
    storages = {}
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("compressed entries, which torch.save never writes")
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("a zip file without a data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if folder + "byteorder" in entries and archive.read(folder + "byteorder") != b"little":
            raise ValueError("big-endian numbers")
        content = _Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        for key, storage in storages.items():
            name = f"{folder}data/{key}"
            if name not in entries:
                raise ValueError(f"no storage {key}")
            storage.fill(archive.read(name))
    return _arrays(content)


def _load_legacy(path: Path) -> Any:
    storages = {}
    with path.open("rb") as file:
        if tuple(_Unpickler(file, storages).load() for _ in _LEGACY) != _LEGACY:
            raise ValueError("no file of PyTorch's")
        if not _Unpickler(file, storages).load()["little_endian"]:
            raise ValueError("big-endian numbers")
        content = _Unpickler(file, storages).load()
        left = path.stat().st_size
        for key in _Unpickler(file, {}).load():
            storage = storages[str(key)]
            (size,) = struct.unpack("<q", file.read(8))
            if size != storage.size or size * storage.dtype.itemsize > left:
                raise ValueError(f"a storage {key} of {size} numbers, {storage.size} announced")
            storage.fill(file.read(size * storage.dtype.itemsize))
    return _arrays(content)


def _arrays(content: Any) -> Any:
    """The same containers with an array in the place of each tensor."""
    if isinstance(content, _Tensor):
        return content.array()
    if isinstance(content, dict):
        return {key: _arrays(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(_arrays, content))
    if content is None or isinstance(content, bool | int | float | str):
        return content
    raise ValueError(f"an object of type {type(content).__name__}")
