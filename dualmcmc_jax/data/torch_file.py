"""PyTorch's .pth files as NumPy arrays, without torch and without running what is pickled in them."""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

from dualmcmc_jax.data.torch_pickle import Tensor, Unpickler

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
