"""Mutated files and arbitrary values are read, or refused in one line. None causes a crash, a hang or much memory use.

The environment variable FUZZ_EXAMPLES sets the number of inputs per test. tests/fuzz.py runs a test with inputs that
are guided by coverage.
"""

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import hypothesis
import memory
import numpy as np
import pytest
import tiny
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from dualmcmc_jax import config_check, torch_reader
from dualmcmc_jax.cli import command_line
from dualmcmc_jax.configs import default
from dualmcmc_jax.data import images, sources
from dualmcmc_jax.runtime import checksums, metric_writer

pytestmark = pytest.mark.slow

hypothesis.settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("fuzz")
FOLDER = Path(tempfile.mkdtemp(prefix="dualmcmc_jax-fuzz-"))


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    with memory.bounded(1000):
        yield


def image_files():
    pixels = np.random.RandomState(0).randint(0, 256, (9, 12, 3)).astype(np.uint8)
    for kind, mode in (("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "P")):
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind, **({"exif": b"Exif\0\0II*\0"} if kind == "JPEG" else {}))
        yield file.getvalue()


def npz_file():
    file = io.BytesIO()
    np.savez(file, train=np.zeros((9, 4, 4, 1), np.uint8), test=np.zeros((2, 4, 4, 1), np.uint8))
    return file.getvalue()


def zip_file():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, content in enumerate(image_files()):
            archive.writestr(f"{i}.png", content)
    return file.getvalue()


def mutated(files):
    """Return a Hypothesis strategy for one of the files with a few random edits, or for random bytes.

    An edit overwrites, inserts, deletes or repeats a few bytes, or cuts off the end of the file.
    """

    def apply(arguments):
        content, edits = bytearray(arguments[0]), arguments[1]
        for position, kind, piece in edits:
            i = position % (len(content) + 1)
            if kind == "overwrite":
                content[i : i + len(piece)] = piece
            elif kind == "insert":
                content[i:i] = piece
            elif kind == "cut":
                del content[i : i + len(piece)]
            elif kind == "double":
                content[i:i] = content[i : i + 16 * len(piece)]
            else:
                del content[i:]
        return bytes(content)

    kind = st.sampled_from(["overwrite"] * 5 + ["insert", "cut", "double", "end"])
    edits = st.lists(st.tuples(st.integers(0, 2**16), kind, st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)
    return st.tuples(st.sampled_from(list(files)), edits).map(apply) | st.binary(max_size=200)


def result_or_refusal(read):
    """Return the result of read(), or None if it raises a ValueError with a proper one-line message."""
    try:
        return read()
    except ValueError as error:
        line = command_line.message(error)
    assert line.isprintable()
    assert 5 < len(line) <= 1000
    return None


@hypothesis.given(mutated(image_files()), st.sampled_from([1, 3]))
def test_mutated_images_are_read_or_refused(content, channels):
    x = result_or_refusal(lambda: images.decode(content, (8, 8, channels), ()))
    assert x is None or (x.shape == (8, 8, channels) and x.dtype == np.uint8)


@hypothesis.given(mutated([zip_file()]))
def test_mutated_zip_files_are_read_or_refused(content):
    path = FOLDER / "a.zip"
    path.write_bytes(content)
    for read in (result_or_refusal(lambda: images.list_files(path)) or {}).values():
        result_or_refusal(lambda read=read: images.decode(read(), (8, 8, 3), ()))


@hypothesis.given(mutated([npz_file()]))
def test_mutated_npz_files_are_read_or_refused(content):
    path = FOLDER / "a.npz"
    path.write_bytes(content)
    result_or_refusal(lambda: sources.load(tiny.config(data__source=f"npz:{path}", data__shape=(4, 4, 1)).data))


@hypothesis.given(mutated(path.read_bytes() for path in (Path(__file__).parent / "reference").glob("*.pth")))
def test_mutated_torch_files_are_read_or_refused(content):
    path = FOLDER / "a.pth"
    path.write_bytes(content)
    result_or_refusal(lambda: torch_reader.load(path))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)
CHECKSUMS = {".step": "a" * 64, ".params['x']": "b" * 64}


@hypothesis.given(ANY_JSON | st.fixed_dictionaries({"checksums": ANY_JSON | st.just(CHECKSUMS)}))
def test_only_records_with_equal_checksums_are_accepted(record):
    if isinstance(record, dict) and record.get("checksums") == CHECKSUMS:
        checksums.check_record(record, CHECKSUMS)
    else:
        with pytest.raises(ValueError, match=r"record|arrays"):
            checksums.check_record(record, CHECKSUMS)


@hypothesis.given(
    mutated([json.dumps(tiny.config().to_dict()).encode()]) | ANY_JSON.map(lambda x: json.dumps(x).encode())
)
def test_mutated_config_json_is_read_or_refused(content):
    (FOLDER / "config.json").write_bytes(content)
    result_or_refusal(lambda: config_check.check_run(FOLDER, tiny.config()))


@hypothesis.given(st.text(max_size=50) | ANY_JSON.map(json.dumps))
def test_step_of_an_arbitrary_row_is_a_number(row):
    assert isinstance(metric_writer._row(row), dict | None)


FIELDS = [name for name in config_check.fields(default.get_config())]
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=5)
    | st.lists(st.integers() | st.floats(), max_size=5)
    | st.lists(st.integers(-3, 99) | st.floats() | st.text(max_size=3) | st.booleans(), max_size=5).map(tuple)
)


@hypothesis.given(st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=4))
def test_arbitrary_config_values_are_accepted_or_refused(values):
    config = ConfigDict(default.get_config().to_dict(), type_safe=False)
    config.update_from_flattened_dict(values)
    result_or_refusal(lambda: config_check.check(config))
