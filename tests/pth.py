"""A writer of .pth files in the format of torch.save that does not need torch."""

import pickle
import sys
import types
import zipfile

import numpy as np

_KINDS = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.float64): "DoubleStorage",
}


class _Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


def save(path, arrays, *, shape=None, strides=None):
    """Write arrays by name. If given, `shape` and `strides` replace those of every array."""
    fake_modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    for kind in _KINDS.values():
        setattr(fake_modules["torch"], kind, type(kind, (), {"__module__": "torch"}))

    def rebuild(*_):
        raise AssertionError

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    fake_modules["torch._utils"]._rebuild_tensor_v2 = rebuild
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, _Storage):
                kind = getattr(fake_modules["torch"], _KINDS[item.array.dtype])
                return "storage", kind, item.key, "cpu", item.array.size
            return None

        def reducer_override(self, item):
            if not isinstance(item, np.ndarray):
                return NotImplemented
            storages.append(_Storage(str(len(storages)), np.ascontiguousarray(item)))
            steps = tuple(stride // item.itemsize for stride in storages[-1].array.strides)
            return rebuild, (storages[-1], 0, shape or item.shape, strides or steps, False, {})

    real_modules = {name: sys.modules.get(name) for name in fake_modules}
    sys.modules.update(fake_modules)
    try:
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("archive/data.pkl", "w") as file:
                Pickler(file, protocol=2).dump(arrays)
            for storage in storages:
                archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
    finally:
        for name, module in real_modules.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
