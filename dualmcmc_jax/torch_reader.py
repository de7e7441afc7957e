"""How are PyTorch's .pth files read? A restricted reader that needs no PyTorch and executes nothing from the file."""

import collections
import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
import numpy as np

_LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""Magic number and version of the legacy file format, which PyTorch wrote before version 1.6."""


def load(path: Path) -> Any:
    """Load a file that torch.save has written.

    Both the zip format and the legacy format before PyTorch 1.6 are supported. The reader accepts tensors, parameters,
    dicts, lists, tuples, numbers, strings and None. It rejects every other object. It calls no function that the file
    names, except stand-ins for those that PyTorch needs for these objects. Arrays are views of the data of the file,
    and the number of other objects is limited, so the memory use is bounded by the size of the file.

    Args:
      path: the file.

    Returns:
      The saved object, with a read-only NumPy array in place of each tensor.

    Raises:
      ValueError: the file does not exist, was not written by torch.save, is damaged, or holds other objects.
    """
    problem = lambda what: ValueError(f"{path}: found {what}, expected a file of tensors written by torch.save")
    if not path.is_file():
        raise ValueError(f"{path}: found no such file, expected a file written by torch.save")
    try:
        return (_load_zip if zipfile.is_zipfile(path) else _load_legacy)(path)
    except RecursionError as error:
        raise problem("objects that are nested too deeply") from error
    except (pickle.UnpicklingError, struct.error, ValueError, OverflowError) as error:
        raise problem(str(error).splitlines()[0] if str(error) else "a damaged file") from error
    except Exception as error:  # zipfile and pickle raise many kinds of errors for damaged files
        raise problem(f"a damaged file ({type(error).__name__})") from error


def _load_zip(path: Path) -> Any:
    storages = {}
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("compressed entries, which torch.save does not write")
        if sum(info.file_size for info in entries.values()) > path.stat().st_size:
            raise ValueError("entries that overlap")
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("a zip file without a data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if folder + "byteorder" in entries and archive.read(folder + "byteorder") != b"little":
            raise ValueError("big-endian numbers")
        content = Unpickler(_Opcodes(archive.read(pickles[0]), path.stat().st_size), storages).load()
        for key, storage in storages.items():
            name = f"{folder}data/{key}"
            if name not in entries:
                raise ValueError(f"no data of storage {key}")
            storage.fill(archive.read(name))
    return _arrays(content, {})


def _load_legacy(path: Path) -> Any:
    content = path.read_bytes()
    storages, data = {}, _Opcodes(content, len(content))
    if tuple(Unpickler(data, storages).load() for _ in _LEGACY) != _LEGACY:
        raise ValueError("a file in another format")
    if not Unpickler(data, storages).load()["little_endian"]:
        raise ValueError("big-endian numbers")
    content = Unpickler(data, storages).load()
    for key in Unpickler(data, {}).load():
        storage = storages[key]
        (size,) = struct.unpack("<q", data.file.read(8))
        if size != storage.size:
            raise ValueError(f"storage {key} with {size} numbers instead of {storage.size}")
        storage.fill(data.file.read(size * storage.dtype.itemsize))
    return _arrays(content, {})


def _arrays(content: Any, converted: dict[int, Any]) -> Any:
    """Return the same containers with an array in place of each tensor.

    `converted` maps the id of each object to the result. An object that occurs several times is converted only once.
    """
    if content is None or isinstance(content, bool | int | float | str):
        return content
    if id(content) not in converted:
        if isinstance(content, Tensor):
            converted[id(content)] = content.array()
        elif isinstance(content, dict):
            converted[id(content)] = {key: _arrays(value, converted) for key, value in content.items()}
        elif type(content) in (list, tuple):
            converted[id(content)] = type(content)(_arrays(value, converted) for value in content)
        else:
            raise ValueError(f"an object of type {type(content).__name__}")
    return converted[id(content)]


class _Opcodes:
    """The opcodes of pickles, with a limit on their total length.

    An opcode of one byte can create an object of a hundred bytes. In a file of tensors the opcodes are a small part.

    Args:
      content: bytes that contain the pickles.
      file_size: size of the whole file in bytes.
    """

    def __init__(self, content: bytes, file_size: int):
        self.file, self.left = io.BytesIO(content), 500_000 + file_size // 50

    def read(self, size: int) -> bytes:
        return self._counted(self.file.read(size))

    def readline(self) -> bytes:
        return self._counted(self.file.readline())

    def _counted(self, part: bytes) -> bytes:
        self.left -= len(part)
        if self.left < 0:
            raise ValueError("more objects than a file of this size holds")
        return part


class Kind(NamedTuple):
    """A stand-in for a storage class of torch, such as torch.FloatStorage."""

    dtype: np.dtype


class Storage:
    """A flat array of which tensors are views. The data of the array are filled in after the tensors have been read."""

    def __init__(self, dtype: np.dtype, size: int):
        self.dtype, self.size, self.array = dtype, size, None

    def fill(self, data: bytes) -> None:
        if len(data) != self.size * self.dtype.itemsize:
            raise ValueError(f"a storage with {len(data)} bytes instead of {self.size * self.dtype.itemsize}")
        self.array = np.frombuffer(data, self.dtype)


class Tensor:
    """A view of a storage. The method `array` returns it as an array once the storage has its data."""

    def __init__(self, storage, offset, shape, strides, _requires_grad=False, _hooks=None, metadata=None):
        shape, strides = tuple(shape), tuple(strides)
        numbers = (offset, *shape, *strides)
        valid = len(shape) == len(strides) <= 32 and all(type(n) is int and 0 <= n < 2**48 for n in numbers)
        if not isinstance(storage, Storage) or not valid or metadata:
            raise ValueError("a tensor that is not a view of a storage")
        if math.prod(shape) > storage.size:
            raise ValueError(f"a tensor of shape {shape} that does not fit its storage of {storage.size} numbers")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        dtype = self.storage.dtype
        if not math.prod(self.shape):
            return np.zeros(self.shape, dtype)
        strides = [stride * dtype.itemsize for stride in self.strides]
        try:  # NumPy checks that every element lies inside the storage
            return np.ndarray(self.shape, dtype, self.storage.array, self.offset * dtype.itemsize, strides)
        except (TypeError, ValueError) as error:
            problem = f"a tensor of shape {self.shape} that does not fit its storage of {self.storage.size} numbers"
            raise ValueError(problem) from error


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
"""The objects that a file may refer to, by module and name, and their stand-ins."""
_CALLABLE = (collections.OrderedDict, Tensor, _parameter, tuple)
"""The objects that a file may call."""
_OPCODE_NAMES = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING BINSTRING "
    "EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS APPEND APPENDS "
    "BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD BINPERSID"
)
_OPCODES = [getattr(pickle, name) for name in _OPCODE_NAMES.split()]
"""The pickle opcodes that torch.save writes."""


class Unpickler(pickle._Unpickler):
    """An unpickler that accepts only the names in _ADMITTED and the opcodes that torch.save writes.

    The base class is Python's unpickler that is written in Python. The unpickler that is written in C has no table of
    opcodes that could be restricted, and it allocates memory for every memo index that a file contains, however large.
    """

    dispatch = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES}  # noqa: RUF012

    def __init__(self, data: _Opcodes, storages: dict[str, Storage]):
        super().__init__(data, encoding="latin-1")
        self.storages = storages

    def find_class(self, module, name):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise ValueError(f"the object {module}.{name}") from None

    def load_reduce(self):
        arguments, function = self.stack.pop(), self.stack[-1]
        if not any(function is allowed for allowed in _CALLABLE) or type(arguments) is not tuple:
            raise ValueError("a call of an object that is not a function")
        if function is collections.OrderedDict and arguments:
            raise ValueError("an OrderedDict with arguments")
        self.stack[-1] = function(*arguments)

    def load_build(self):
        self.stack.pop()  # Drop the attributes: they are not needed, and could overwrite checked values.

    def load_setitem(self):
        self._check_keys(self.stack[-2:-1])
        pickle._Unpickler.load_setitem(self)

    def load_setitems(self):
        self._check_keys(self.stack[::2])
        pickle._Unpickler.load_setitems(self)

    def _check_keys(self, keys):
        if not all(type(key) in (str, int, float) for key in keys):  # hashing deeply nested tuples can crash Python
            raise ValueError("a dictionary key that is not a string or number")

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }

    def persistent_load(self, pid):
        marker, kind, key, _, size, *view = pid
        valid = marker == "storage" and isinstance(kind, Kind) and type(key) is str and type(size) is int
        if not valid or not 0 <= size < 2**48 or any(part is not None for part in view):
            raise ValueError("an invalid storage")
        storage = self.storages.setdefault(key, Storage(kind.dtype, size))
        if (storage.dtype, storage.size) != (kind.dtype, size):
            raise ValueError("two different storages of the same name")
        return storage
