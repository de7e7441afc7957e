"""The JSON file of a benchmark is checked before the measurements, and replaced as a whole."""

import json
import os
import sys

import pytest

from dualmcmc_jax.benchmark import gpu_day, numbers_file


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere/a.json", "in a folder that exists"),
        (".", "expected a file"),
        ("file/a.json", "in a folder that exists"),
    ],
)
def test_file_that_cannot_be_written_is_refused(name, problem, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"^--json: found .*{problem}$"):
        numbers_file.check(str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("out", ["file", "file/x", "out"])
def test_folder_of_the_gpu_day_that_cannot_be_written_to_is_refused(out, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "logs").touch()
    monkeypatch.setattr(sys, "argv", ["gpu_day", f"--out={tmp_path / out}", "--tiny", "--seconds=0"])
    with pytest.raises(SystemExit, match=r"^error: --out: found .*, expected a folder that can be written to$"):
        gpu_day.main()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "logs", "out"]


def test_numbers_replace_a_file_but_not_a_pipe(tmp_path):
    path = tmp_path / "a.json"
    for numbers in ({"seconds": 1.5}, {"seconds": 2.5}):
        numbers_file.check(str(path))
        numbers_file.save(str(path), numbers)
        assert json.loads(path.read_text()) == numbers
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    reader, writer = os.pipe()
    numbers_file.check(f"/dev/fd/{writer}")
    numbers_file.save(f"/dev/fd/{writer}", {"seconds": 3.5})
    assert json.loads(os.read(reader, 1000)) == {"seconds": 3.5}
    os.close(reader)
    os.close(writer)
