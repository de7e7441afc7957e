"""The reader of .pth files, on files that torch 2.13 wrote and on malicious files."""

import copy
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pth
import pytest

from dualmcmc_jax import torch_reader

FILES = [Path(__file__).parent / "reference" / f"tensors{kind}.pth" for kind in ("", "_legacy")]


@pytest.mark.parametrize("path", FILES, ids=("zip", "legacy"))
def test_files_of_torch_are_read(path):
    content = torch_reader.load(path)
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "weight": base,
        "view": base.T[1:3],
        "scalar": np.float64(2.5),
        "parameter": np.ones((2, 3), np.float32),
        "half": np.array([1.5, -2.0], np.float16),
        "long": np.array([[1, -2]]),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }
    arrays = content.pop("net") | content
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    np.testing.assert_array_equal(content["brain"].astype(np.float32), [1.5, -2.0])
    assert content["steps"] == [3, 0.25, None, "text", (1, 2)]


def test_files_of_the_tests_own_writer_are_read(tmp_path):
    arrays = {"a.b": np.random.RandomState(0).normal(size=(3, 4)).astype(np.float32), "n": np.array([1, 2])}
    pth.save(tmp_path / "x.pth", arrays)
    content = torch_reader.load(tmp_path / "x.pth")
    assert list(content) == ["a.b", "n"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(content[name], array)


class Malicious:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def in_zip(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", content)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_pickled_code_is_not_executed(kind, tmp_path):
    path, trace = tmp_path / "x.pth", tmp_path / "trace"
    bad = pickle.dumps({"net": Malicious(trace)}, protocol=2)
    if kind == "zip":
        in_zip(path, bad)
    elif kind == "legacy":
        header = [torch_reader._LEGACY[0], torch_reader._LEGACY[1], {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in header) + bad)
    else:
        path.write_bytes(bad)
    with pytest.raises(ValueError, match=r"found the object (posix|nt)\.mkdir, expected a file of tensors"):
        torch_reader.load(path)
    assert not trace.exists()
    pickle.loads(bad)
    assert trace.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "builtins getattr", "os system", "torch.serialization load", "numpy.core.multiarray scalar"],
)
def test_pickled_names_that_tensors_do_not_need_are_refused(name, tmp_path):
    module, attribute = name.split()
    in_zip(tmp_path / "x.pth", f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(ValueError, match=f"found the object {module}.{attribute}"):
        torch_reader.load(tmp_path / "x.pth")


def rewrite(path, out, change):
    """Copy a zip file. For each entry, call change(add, name, data), which may add a changed entry to the copy."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w") as copy:
        for info in archive.infolist():
            change(copy.writestr, info.filename, archive.read(info.filename))


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
    """The files are truncated at a random place, or have a random bit flipped."""
    refused = []
    for path in FILES:
        whole = path.read_bytes()
        random = np.random.RandomState(0)
        for i in range(300):
            damaged = bytearray(whole)
            if i % 2:
                damaged[random.randint(len(whole))] ^= 1 << random.randint(8)
            else:
                del damaged[random.randint(len(whole)) :]
            (tmp_path / "x.pth").write_bytes(damaged)
            try:
                torch_reader.load(tmp_path / "x.pth")
            except ValueError as error:
                refused.append(str(error))
    assert len(refused) > 300
    assert all(line.startswith(f"{tmp_path / 'x.pth'}: found ") and "\n" not in line for line in refused)


def test_invalid_files_are_refused_with_the_reason(tmp_path):
    path, good = tmp_path / "x.pth", FILES[0]
    pth.save(path, {"a": np.zeros((2, 3), np.float32)})
    refuse = lambda match: pytest.raises(ValueError, match=match)

    out = tmp_path / "out.pth"
    rewrite(path, out, lambda add, name, data: add(name, data[:-4] if "/data/" in name else data))
    with refuse("a storage with 20 bytes instead of 24"):
        torch_reader.load(out)
    rewrite(path, out, lambda add, name, data: "/data/" in name or add(name, data))
    with refuse("no data of storage 0"):
        torch_reader.load(out)
    rewrite(good, out, lambda add, name, data: add(name, b"big" if "byteorder" in name else data))
    with refuse("big-endian numbers"):
        torch_reader.load(out)
    in_zip(path, b"\x80\x02}." + bytes(10_000_000), zipfile.ZIP_DEFLATED)
    with refuse("compressed entries"):
        torch_reader.load(path)
    with refuse("found no such file"):
        torch_reader.load(tmp_path / "nosuch.pth")
    path.write_text("text")
    with refuse("expected a file of tensors written by torch.save"):
        torch_reader.load(path)
    pth.save(path, {"a": np.zeros((2, 3), np.float32)}, shape=(2, 4))
    with refuse(r"a tensor of shape \(2, 4\) that does not fit its storage of 6 numbers"):
        torch_reader.load(path)
    pth.save(path, {"a": np.zeros((2, 3), np.float32)}, shape=(2**40, 2**40), strides=(0, 0))
    with refuse("does not fit its storage"):
        torch_reader.load(path)
    deep = io.BytesIO()
    deep.write(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    in_zip(path, deep.getvalue())
    with refuse("objects that are nested too deeply"):
        torch_reader.load(path)
    list_in_itself = b"\x80\x02]q\x00h\x00a."
    in_zip(path, list_in_itself)
    with refuse("objects that are nested too deeply"):
        torch_reader.load(path)


def tensor(rest):
    """Return a pickle that puts a tensor of four floats on the stack, followed by the opcodes in `rest`."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
    opcodes = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02" + opcodes + rest + b"."


def with_storage(path, content):
    """Write a .pth file with a pickle and a storage of four floats."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/data/0", np.arange(4, dtype=np.float32).tobytes())


def test_deeply_nested_keys_are_refused(tmp_path):
    # Hashing such a key would overflow the C stack and end the process.
    deep = b")" + b"\x85" * 300_000
    for content in (b"\x80\x02}" + deep + b"K\x01s.", b"\x80\x02}(" + deep + b"K\x01u."):
        path = tmp_path / "deep.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
        with pytest.raises(ValueError, match="a dictionary key that is not a string or number"):
            torch_reader.load(path)


def test_build_opcode_cannot_change_a_checked_tensor(tmp_path):
    """BUILD could set attributes, here a shape and strides that reach into memory beyond the storage."""
    path = tmp_path / "x.pth"
    state = b"}(X\x05\0\0\0shapeJ\0\x10\0\0\x85X\x07\0\0\0stridesK\x01\x85ub"
    for rest in (b"", state):
        with_storage(path, tensor(rest))
        np.testing.assert_array_equal(torch_reader.load(path), [0, 1, 2, 3])
    with_storage(path, b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}(X\x05\0\0\0arrayK\x01ub.")
    with pytest.raises(ValueError, match="an object of type type"):
        torch_reader.load(path)
    assert callable(torch_reader.Tensor.array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]r\xff\xff\xff\x7f.", None),  # a memo index of 2^31
        (b"\x80\x02]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(40)) + b".", None),  # 2^40 leaves
        (tensor(b"q\0]q\1(" + b"h\0" * 100_000 + b"e"), None),  # the same tensor many times
        (tensor(b"").replace(b"K\x04\x85", b"(" + b"K\x01" * 50 + b"t"), "not a view of a storage"),
        (tensor(b"").replace(b"K\x04\x85", b"K\x05\x85"), "does not fit its storage of 4"),
        (tensor(b"").replace(b"K\0K\x04", b"K\x01K\x04"), "does not fit its storage of 4"),
        (tensor(b"").replace(b"ctorch\nFloatStorage\n", b"X\x02\0\0\0U3"), "an invalid storage"),
        (tensor(b"").replace(b")RtR", b")R}X\x03\0\0\0neg\x88stR"), "not a view of a storage"),
        (b"\x80\x02]K\x01\x85R.", "a call of an object that is not a function"),
        (b"\x80\x02c__builtin__\neval\n.", "the object __builtin__.eval"),
        (b"(lp0\n.", "a damaged file"),  # an opcode of another protocol
    ],
)
def test_hostile_pickles_need_little_memory(content, message, tmp_path):
    path = tmp_path / "x.pth"
    with_storage(path, content)
    tracemalloc.start()
    if message:
        with pytest.raises(ValueError, match=message):
            torch_reader.load(path)
    else:
        torch_reader.load(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_entries_with_shared_bytes_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02].")
        archive.writestr("x/data/0", bytes(100_000))
        for i in range(1, 10):
            info = copy.copy(archive.getinfo("x/data/0"))
            info.filename = f"x/data/{i}"
            archive.filelist.append(info)
    with pytest.raises(ValueError, match="entries that overlap"):
        torch_reader.load(path)


def test_legacy_storage_larger_than_announced_is_refused(tmp_path):
    whole = FILES[1].read_bytes()
    place = whole.index(struct.pack("<q", 24))
    (tmp_path / "x.pth").write_bytes(whole[:place] + struct.pack("<q", 2**40) + whole[place + 8 :])
    with pytest.raises(ValueError, match=r"storage \d+ with 1099511627776 numbers instead of 24"):
        torch_reader.load(tmp_path / "x.pth")


@pytest.mark.parametrize("opcode", [b"(", b"]", b"}", b"N\x85", b"]q\0"], ids=repr)
@pytest.mark.parametrize("legacy", [False, True])
def test_memory_for_millions_of_opcodes_is_bounded(opcode, legacy, tmp_path):
    path, content = tmp_path / "x.pth", b"\x80\x02" + opcode * 1_000_000
    if legacy:
        header = [*torch_reader._LEGACY, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in header) + content)
    else:
        in_zip(path, content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"x\.pth: found more objects than a file of this size holds, expected"):
        torch_reader.load(path)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
