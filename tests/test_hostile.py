"""Untrusted files are read correctly or refused in one line, with little memory and without side effects."""

import contextlib
import io
import os
import pickle
import shutil
import struct
import zipfile
import zlib

import memory
import numpy as np
import pytest
import tiny
from PIL import Image

from dualmcmc_jax import config_check, models
from dualmcmc_jax.data import sources
from dualmcmc_jax.runtime import checkpoints, metric_writer, workdirs
from dualmcmc_jax.training import checkpointing, optimizers
from dualmcmc_jax.training import state as train_state

pytestmark = pytest.mark.slow


class SideEffect:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def png(image=None, size=(16, 16), **options):
    file = io.BytesIO()
    (image or Image.new("RGB", size, (9, 9, 9))).save(file, **{"format": "PNG"} | options)
    return file.getvalue()


def png_header(width, height):
    """Return a PNG whose header states a size, but which contains almost no data."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def png_with_large_text():
    """Return a PNG with a compressed comment that decompresses to 1 GB."""
    packer = zlib.compressobj(9)
    body = b"Comment\0\0" + b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 10)) + packer.flush()
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    whole = png()
    return whole[:33] + chunk + whole[33:]


def folder(path, files):
    """Write {name: content} to files in a folder."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


GOOD = {f"{i}.png": png() for i in range(3)}
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (w) file\n"

FOLDERS = {
    "a text file named png": (
        {"a.png": b"no image at all"},
        "1 of 4 images that cannot be read, the first is a.png: not an image",
    ),
    "an empty file": ({"a.png": b""}, "the first is a.png: not an image"),
    "20,000 x 20,000 pixels": ({"a.png": png_header(20_000, 20_000)}, "the first is a.png: Image size"),
    "10,000 x 10,000 pixels": (
        {"a.png": png_header(10_000, 10_000)},
        "a.png: 10000 x 10000 pixels, expected",
    ),
    "2**31 pixels wide": ({"a.png": png_header(2**31 - 1, 2**31 - 1)}, "the first is a.png: "),
    "0 x 0 pixels": ({"a.png": png_header(0, 0)}, "the first is a.png: "),
    "a text chunk of 1 GB": ({"a.png": png_with_large_text()}, None),
    "a PostScript file named png": ({"a.png": POSTSCRIPT}, "the first is a.png: not an image"),
    "a truncated PNG": ({"a.png": png()[:-32]}, "the first is a.png: "),
    "a PNG with damaged bytes": ({"a.png": png()[:45] + bytes(9) + png()[54:]}, "the first is a.png: "),
    "a TIFF named png": ({"a.png": png(format="TIFF")}, None),
    "1 x 1 pixel": ({"a.png": png(size=(1, 1))}, None),
    "1 x 5,000 pixels": ({"a.png": png(size=(1, 5000))}, None),
    "a GIF named png": ({"a.png": png(format="GIF")}, None),
    "a name with odd characters": ({"a\n\x1b[31m %s {x}.png": png()}, None),
    "a file that is not an image": ({"notes.txt": b"\xff\xfe\0"}, None),
}


@pytest.fixture(autouse=True)
def bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with memory.bounded(400):  # less than the 1 GB of text in the PNG
        yield


def load(source, message, tmp_path, shape=(8, 8, 3)):
    """Load a data set. If message is not None, check instead that the source is refused with this message."""
    config = tiny.config(data__source=source, data__shape=shape)
    if message is None:
        return sources.load(config.data)
    with pytest.raises(ValueError, match="found") as error:
        sources.load(config.data)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    return None


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_with_an_odd_file_is_read_or_refused(name, tmp_path):
    files, message = FOLDERS[name]
    path = folder(tmp_path / "images", GOOD | files)
    dataset = load(f"images:{path}", message, tmp_path)
    if dataset:
        assert len(dataset.train) + len(dataset.test) == sum(file.endswith("png") for file in GOOD | files)


def test_links_to_nothing_are_bad_images(tmp_path):
    path = folder(tmp_path / "images", GOOD)
    (path / "itself.png").symlink_to("itself.png")
    (path / "nowhere.png").symlink_to("nothing")
    load(f"images:{path}", "found 2 of 5 images that cannot be read, the first is itself.png: ", tmp_path)


def test_loops_and_pipes_in_a_folder_are_skipped(tmp_path):
    path = folder(tmp_path / "images", GOOD)
    (path / "up").symlink_to("..")
    os.mkfifo(path / "pipe.png")
    (path / "endless.png").symlink_to("/dev/zero")
    dataset = load(f"images:{path}", None, tmp_path)
    assert len(dataset.train) + len(dataset.test) == len(GOOD)


def test_file_that_is_too_large_is_refused(tmp_path):
    path = folder(tmp_path / "images", GOOD)
    with (path / "a.png").open("wb") as file:
        file.truncate(10**10)
    load(f"images:{path}", "the first is a.png: 10000 MB, expected at most 256", tmp_path)


def write_zip(path, files, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_zip_entries_are_not_written_outside_the_cache(tmp_path):
    path = write_zip(tmp_path / "a.zip", GOOD | {"../../slip.png": png(), "/slip.png": png(), "C:\\slip.png": png()})
    before = {file for file in tmp_path.rglob("*") if "cache" not in file.parts}
    dataset = load(f"images:{path}", None, tmp_path)
    assert len(dataset.train) + len(dataset.test) == 5  # names with ".." are skipped like hidden files
    assert {file for file in tmp_path.rglob("*") if "cache" not in file.parts} == before


def test_zip_entry_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    write_zip(path, GOOD)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as file:
        for _ in range(300):
            file.write(bytes(10**6))
    assert path.stat().st_size < 10**6
    load(f"images:{path}", "the first is a.png: 300 MB, expected at most 256", tmp_path)


def test_zip_entry_with_a_wrong_size_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", GOOD | {"a.png": bytes(10**8)})
    damaged = path.read_bytes().replace(struct.pack("<I", 10**8), struct.pack("<I", 100))
    path.write_bytes(damaged)
    load(f"images:{path}", "the first is a.png: ", tmp_path)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("images", zipfile.ZIP_DEFLATED),
        ("npz", zipfile.ZIP_BZIP2),
        pytest.param("images", zipfile.ZIP_LZMA, marks=pytest.mark.more),
        pytest.param("npz", zipfile.ZIP_DEFLATED, marks=pytest.mark.more),
        pytest.param("images", zipfile.ZIP_BZIP2, marks=pytest.mark.more),
        pytest.param("npz", zipfile.ZIP_LZMA, marks=pytest.mark.more),
    ],
)
def test_large_entry_with_a_wrong_size_is_refused(kind, method, tmp_path):
    """The entry decompresses to 600 MB, but its header states 100 bytes."""
    path, name = tmp_path / f"a.{kind}", {"images": "a.png", "npz": "a.npy"}[kind]
    with zipfile.ZipFile(path, "w") as archive:
        for good, content in GOOD.items():
            archive.writestr(good if kind == "images" else f"{good}.npy", content)
        with archive.open(zipfile.ZipInfo(name), "w") as file:
            file._compressor, file._zinfo.compress_type = zipfile._get_compressor(method), method
            for _ in range(600):
                file.write(bytes(10**6))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 6 * 10**8), struct.pack("<I", 100)))
    load(f"{'images' if kind == 'images' else 'npz'}:{path}", "found ", tmp_path)


def test_full_disk_while_images_are_decoded_raises_an_error(tmp_path, monkeypatch):
    """Disk space is reserved before the memory map is written, because writing to a full disk would end the process."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    path = folder(tmp_path / "images", GOOD)
    with pytest.raises(OSError, match="No space left"):
        sources.load(tiny.config(data__source=f"images:{path}", data__shape=(8, 8, 3)).data)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_links_in_a_workdir_are_not_followed(tmp_path):
    for name in (".lock", ".config.json.new"):
        run = tmp_path / name.strip(".")
        run.mkdir()
        (tmp_path / "mine").write_text("mine")
        (run / name).symlink_to(tmp_path / "mine")
        with contextlib.suppress(ValueError), workdirs.claim(run, tiny.config().to_dict()):
            pass
        assert (tmp_path / "mine").read_text() == "mine"


def test_checkpoint_with_too_many_bytes_is_refused(checkpointed, caplog):
    with checkpoints.Checkpoints(checkpointed, keep=2) as store:
        state = checkpointing.read(store, tiny.config())
        checkpointing.save(store, state._replace(step=np.asarray(2, np.int32), key=np.zeros(10**8, np.uint8)))
    assert int(checkpointing.restore(tiny.config(), checkpointed).step) == 1
    assert (
        "2: found parameters of another model, key: uint8 (100000000,); using the checkpoint of step 1" in caplog.text
    )


def test_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", GOOD | {"a.png": png()})
    content = bytearray(path.read_bytes())
    local, central = content.rindex(b"PK\x03\x04"), content.rindex(b"PK\x01\x02")
    content[local + 6] |= 1
    content[central + 8] |= 1
    path.write_bytes(content)
    load(f"images:{path}", "is encrypted, password required for extraction; expected none", tmp_path)


def test_truncated_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", GOOD)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    load(f"images:{path}", "found a file that is not a zip file", tmp_path)
    path.write_bytes(content[60:])
    load(f"images:{path}", "found ", tmp_path)


def npy(header, body=b""):
    header = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


NPY = {
    "an array larger than any memory": "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,), }\n",
    "a negative size": "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8, 8, 3), }\n",
    "an array of objects": "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n",
    "a header with code": "__import__('os').mkdir('hacked')\n",
    "a header of 9,000 brackets": "(" * 9000 + "\n",
    "an unknown type": "{'descr': 'nonsense', 'fortran_order': False, 'shape': (3,), }\n",
    "records with objects": "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (3,), }\n",
}


@pytest.mark.parametrize("name", NPY)
def test_npz_with_an_invalid_header_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_zip(tmp_path / "a.npz", {"images.npy": npy(NPY[name], bytes(576))})
    load(f"npz:{path}", f"data.source: found {path} unreadable (", tmp_path)
    assert not (tmp_path / "hacked").exists()


def test_npz_files_are_never_unpickled(tmp_path):
    body = pickle.dumps(np.array([SideEffect(tmp_path / "hacked")], dtype=object), protocol=2)
    path = write_zip(tmp_path / "a.npz", {"images.npy": npy(NPY["an array of objects"], body)})
    load(f"npz:{path}", "Object arrays cannot be loaded", tmp_path)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(SideEffect(tmp_path / "hacked")))
    load(f"npz:{tmp_path / 'b.npz'}", "unreadable (", tmp_path)
    assert not (tmp_path / "hacked").exists()


def test_npz_larger_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_physical_memory", lambda: 10**9)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        for _ in range(600):
            file.write(bytes(10**6))
    load(f"npz:{path}", "1 GB, more than half of the 1 GB of memory", tmp_path)


@pytest.mark.parametrize("name", ["record/metadata", "state/_METADATA", "_CHECKPOINT_METADATA", "state/manifest.ocdbt"])
def test_checkpoints_are_never_unpickled(name, checkpointed, tmp_path):
    (checkpointed / "checkpoints" / "1" / name).write_bytes(pickle.dumps(SideEffect(tmp_path / "hacked")))
    with contextlib.suppress(ValueError):  # without some files, the checkpoint can still be restored
        checkpointing.restore(tiny.config(), checkpointed)
    assert not (tmp_path / "hacked").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with a single checkpoint, which tests must not modify."""
    config, workdir = tiny.config(), tmp_path_factory.mktemp("saved") / "run"
    state = train_state.create(config, models.build(config), optimizers.build(config, steps_per_epoch=1))
    with checkpoints.Checkpoints(workdir, keep=1) as store:
        checkpointing.save(store, state._replace(step=np.asarray(1, np.int32)))
    return workdir


@pytest.fixture
def checkpointed(saved, tmp_path):
    """A copy of a workdir with a single checkpoint, which a test may modify."""
    return shutil.copytree(saved, tmp_path / "run")


RECORDS = {
    "not JSON": b"{",
    "a list": b"[]",
    "no checksums": b"{}",
    "a number as checksums": b'{"checksums": 3}',
    "a list as checksums": b'{"checksums": ["a"]}',
    "100,000 brackets": b"[" * 100_000,
    "not UTF-8": b"\xff\xfe",
    "other checksums": b'{"checksums": {"a": "b"}}',
}


@pytest.mark.parametrize("name", RECORDS)
def test_checkpoint_with_invalid_checksums_is_refused(name, checkpointed):
    (checkpointed / "checkpoints" / "1" / "record" / "metadata").write_bytes(RECORDS[name])
    with pytest.raises(ValueError, match="found a damaged checkpoint") as error:
        checkpointing.restore(tiny.config(), checkpointed)
    assert len(str(error.value).splitlines()) == 1


CONFIGS = {
    "half-written": b'{"data": {"sou',
    "empty": b"",
    "a list": b"[1, 2]",
    "100,000 brackets": b"[" * 100_000,
    "not UTF-8": b"\xff\xfe\0",
    "unknown fields": b'{"a": {"b": 1}}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_invalid_config_json_is_refused_and_kept(name, tmp_path):
    (tmp_path / "config.json").write_bytes(CONFIGS[name])
    with pytest.raises(ValueError, match=r"config\.json: ") as error:
        config_check.check_run(tmp_path, tiny.config())
    assert len(str(error.value).splitlines()) == 1
    assert (tmp_path / "config.json").read_bytes() == CONFIGS[name]


def test_invalid_rows_of_metrics_are_dropped(tmp_path, monkeypatch):
    # Importing TensorBoard would need too much memory.
    monkeypatch.setattr(metric_writer, "_tensorboard_writer", lambda workdir: None)
    good = b'{"step": 1, "energy_loss": 2.0}\n'
    bad = [
        b"{}",
        b"[]",
        b"3",
        b'{"step": "x"}',
        b'{"step": null}',
        b"\xff\xfe",
        b"[" * 100_000,
        bytes(50),
        b'{"step": 1' + b"0" * 400 + b"}",
    ]
    (tmp_path / "metrics.jsonl").write_bytes(good + b"\n".join(bad) + b'\n{"step": 2')
    with metric_writer.MetricsWriter(tmp_path, step=1, num_steps=3, every=1):
        pass
    assert (tmp_path / "metrics.jsonl").read_bytes() == good
