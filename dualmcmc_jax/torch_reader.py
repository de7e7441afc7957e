"""Restricted reader of PyTorch's .pth files: NumPy arrays without torch, and nothing in the file is executed."""

import collections
import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (so that NumPy knows bfloat16)
import numpy as np

_LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""Magic number and version of the format before PyTorch 1.6."""


def load(path: Path) -> Any:
    """What torch.save wrote: tensors as read-only arrays, inside dicts, lists, tuples, numbers and strings.

    Files of every PyTorch version are read: the zip format, and the one before 1.6. Any other object is refused by its
    name; nothing that the file names is ever called. Memory is bounded by the size of the file: arrays are views of it.

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
    except (pickle.UnpicklingError, struct.error, ValueError, OverflowError) as error:
        raise problem(str(error).splitlines()[0] if str(error) else "a damaged file") from error
    except Exception as error:  # zipfile's and pickle's own, a dozen kinds
        raise problem(f"a damaged file ({type(error).__name__})") from error


def _load_zip(path: Path) -> Any:
    storages = {}
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("compressed entries, which torch.save never writes")
        if sum(info.file_size for info in entries.values()) > path.stat().st_size:
            raise ValueError("entries that overlap")
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("a zip file without a data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if folder + "byteorder" in entries and archive.read(folder + "byteorder") != b"little":
            raise ValueError("big-endian numbers")
        content = Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        for key, storage in storages.items():
            name = f"{folder}data/{key}"
            if name not in entries:
                raise ValueError(f"no storage {key}")
            storage.fill(archive.read(name))
    return _arrays(content, {})


def _load_legacy(path: Path) -> Any:
    storages, data = {}, io.BytesIO(path.read_bytes())
    if tuple(Unpickler(data, storages).load() for _ in _LEGACY) != _LEGACY:
        raise ValueError("no file of PyTorch's")
    if not Unpickler(data, storages).load()["little_endian"]:
        raise ValueError("big-endian numbers")
    content = Unpickler(data, storages).load()
    for key in Unpickler(data, {}).load():
        storage = storages[key]
        (size,) = struct.unpack("<q", data.read(8))
        if size != storage.size:
            raise ValueError(f"a storage {key} of {size} numbers, {storage.size} announced")
        storage.fill(data.read(size * storage.dtype.itemsize))
    return _arrays(content, {})


def _arrays(content: Any, made: dict[int, Any]) -> Any:
    """The same containers with an array in the place of each tensor; what is there twice is made once."""
    if content is None or isinstance(content, bool | int | float | str):
        return content
    if id(content) not in made:
        if isinstance(content, Tensor):
            made[id(content)] = content.array()
        elif isinstance(content, dict):
            made[id(content)] = {key: _arrays(value, made) for key, value in content.items()}
        elif type(content) in (list, tuple):
            made[id(content)] = type(content)(_arrays(value, made) for value in content)
        else:
            raise ValueError(f"an object of type {type(content).__name__}")
    return made[id(content)]


class Kind(NamedTuple):
    """Stands for one of torch's storage classes."""

    dtype: np.dtype


class Storage:
    """A flat array that tensors are views of; filled after the tensors are known."""

    def __init__(self, dtype: np.dtype, size: int):
        self.dtype, self.size, self.array = dtype, size, None

    def fill(self, data: bytes) -> None:
        if len(data) != self.size * self.dtype.itemsize:
            raise ValueError(f"{len(data)} bytes of a storage of {self.size * self.dtype.itemsize}")
        self.array = np.frombuffer(data, self.dtype)


class Tensor:
    """A view of a storage, made into an array when the storage has been read."""

    def __init__(self, storage, offset, shape, strides, _requires_grad=False, _hooks=None, metadata=None):
        shape, strides = tuple(shape), tuple(strides)
        numbers = (offset, *shape, *strides)
        sound = len(shape) == len(strides) <= 32 and all(type(n) is int and 0 <= n < 2**48 for n in numbers)
        if not isinstance(storage, Storage) or not sound or metadata:
            raise ValueError("a tensor that is no view of a storage")
        if math.prod(shape) > storage.size:
            raise ValueError(f"a tensor of shape {shape} outside its storage of {storage.size}")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        dtype = self.storage.dtype
        if not math.prod(self.shape):
            return np.zeros(self.shape, dtype)
        strides = [stride * dtype.itemsize for stride in self.strides]
        try:  # NumPy checks that every element lies inside the storage
            return np.ndarray(self.shape, dtype, self.storage.array, self.offset * dtype.itemsize, strides)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a tensor of shape {self.shape} outside its storage of {self.storage.size}") from error


def _parameter(data, *_):
    return data


_KINDS = ["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
_DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
_ADMITTED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
} | {("torch", f"{kind}Storage"): Kind(np.dtype(dtype)) for kind, dtype in zip(_KINDS, _DTYPES, strict=True)}
_CALLED = (collections.OrderedDict, Tensor, _parameter, tuple)
_NAMES = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING BINSTRING "
    "EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS APPEND APPENDS "
    "BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD BINPERSID"
)
_OPCODES = [getattr(pickle, name) for name in _NAMES.split()]


class Unpickler(pickle._Unpickler):
    """Knows the names in _ADMITTED and the opcodes that torch.save writes, and nothing else.

    It is Python's own unpickler in Python: the one in C has no such table, and reserves memory for any memo index.
    """

    dispatch = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES}  # noqa: RUF012

    def __init__(self, data: io.BytesIO, storages: dict[str, Storage]):
        super().__init__(data, encoding="latin-1")
        self.storages = storages

    def find_class(self, module, name):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise ValueError(f"the object {module}.{name}") from None

    def load_reduce(self):
        arguments, function = self.stack.pop(), self.stack[-1]
        if not any(function is known for known in _CALLED) or type(arguments) is not tuple:
            raise ValueError("a call of what is no function")
        if function is collections.OrderedDict and arguments:
            raise ValueError("a dictionary made of something")
        self.stack[-1] = function(*arguments)

    def load_build(self):
        self.stack.pop()  # attributes, which nothing here needs and everything could be altered by

    def load_setitem(self):
        self._check_keys(self.stack[-2:-1])
        pickle._Unpickler.load_setitem(self)

    def load_setitems(self):
        self._check_keys(self.stack[::2])
        pickle._Unpickler.load_setitems(self)

    def _check_keys(self, keys):
        if not all(type(key) in (str, int, float) for key in keys):  # hashing others may end the process
            raise ValueError("a key that is no name")

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }

    def persistent_load(self, saved):
        marker, kind, key, _, size, *view = saved
        sound = marker == "storage" and isinstance(kind, Kind) and type(key) is str and type(size) is int
        if not sound or not 0 <= size < 2**48 or any(part is not None for part in view):
            raise ValueError("a storage that is none")
        storage = self.storages.setdefault(key, Storage(kind.dtype, size))
        if (storage.dtype, storage.size) != (kind.dtype, size):
            raise ValueError("two storages of one name")
        return storage
