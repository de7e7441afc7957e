"""The launch scripts install the package and its console commands."""

import importlib
import itertools
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FAKE_PYTHON = '#!/bin/sh\necho "$@" >> "$VENV/calls"\ntouch "$VENV/bin/dualmcmc" && chmod +x "$VENV/bin/dualmcmc"\n'


def test_package_is_installed_once_with_the_requirements(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text('PATH="$VENV/bin:$PATH"\n')
    (tmp_path / "bin" / "python").write_text(FAKE_PYTHON)
    (tmp_path / "bin" / "python").chmod(0o755)
    for _ in range(2):
        env = os.environ | {"VENV": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
        subprocess.run([ROOT / "launch" / "local.sh", "--mode=sample"], env=env, check=True, capture_output=True)
    install = "-m pip install --quiet --disable-pip-version-check --no-compile -c requirements.lock"
    install += " -r requirements/core.txt -e ."
    run = "-m dualmcmc_jax.main --mode=sample"
    assert (tmp_path / "calls").read_text().splitlines() == [install, run, run]


def bounds(path):
    """Return the requirements of a requirements file and of the files that it includes."""
    lines = [line.partition(" #")[0].strip() for line in path.read_text().splitlines() if not line.startswith("#")]
    included = [bounds(path.parent / line.removeprefix("-r ")) for line in lines if line.startswith("-r ")]
    own = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    return [*own, *itertools.chain.from_iterable(included)]


def test_lock_agrees_with_the_bounds_on_every_python():
    locked = bounds(ROOT / "requirements.lock")
    required = {canonicalize_name(bound.name): bound for bound in bounds(ROOT / "tests" / "requirements.txt")}
    assert len(required) > 20
    for entry in locked:
        ((operator, version),) = [(part.operator, part.version) for part in entry.specifier]
        assert operator == "=="
        if entry.name in required:
            assert version in required[entry.name].specifier, f"{entry}: expected {required[entry.name]}"
    for python in ("3.11.0", "3.12.0", "3.13.0", "3.14.0"):
        env = {"python_version": python[:4], "python_full_version": python, "sys_platform": "linux"}
        names = [entry.name for entry in locked if not entry.marker or entry.marker.evaluate(env)]
        assert len(names) == len(set(names))
        assert required.keys() <= set(names)


def test_requirements_are_those_of_the_package_and_of_its_extras():
    dynamic = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]
    tables = [dynamic["dependencies"], *dynamic["optional-dependencies"].values()]
    files = {file for table in tables for file in table["file"]}
    assert {f"-r {file}" for file in files} == set((ROOT / "requirements.txt").read_text().splitlines()[1:])
    assert {ROOT / file for file in files} == set((ROOT / "requirements").iterdir())


PYTHONS = {"python3": "3.11.9", "python3.11": "3.11.9", "python3.12": "3.12.10", "python3.13": "3.13.2"}


def make_environment(tmp_path, **env):
    """Source venv.sh, with fake Pythons on the PATH. python3.14 fails like a shim of pyenv, and 3.15 is too new."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name, version in (PYTHONS | {"python3.14": "", "python3.15": "3.15.0"}).items():
        numbers = ", ".join(version.split("."))
        fake = f"""#!{sys.executable} -SE
import os, sys
if not {version!r}: sys.exit("pyenv: python3.14: command not found")
sys.version_info = type("", (tuple,), {{"releaselevel": "final"}})(({numbers}))
if sys.argv[1] == "-c": exec(sys.argv[2])
if sys.argv[1:3] == ["-m", "venv"]:
    os.makedirs(sys.argv[3] + "/bin")
    open(sys.argv[3] + "/python", "w").write({version!r})
    open(sys.argv[3] + "/bin/activate", "w").write("exit")
"""
        (folder / name).write_text(fake)
        (folder / name).chmod(0o755)
    path = {"PATH": f"{folder}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path / "pyenv"), "VENV": str(tmp_path / "venv")}
    command = ["bash", "-c", "set -euo pipefail; . launch/venv.sh requirements/core.txt"]
    return subprocess.run(command, cwd=ROOT, env=path | env, capture_output=True, text=True)


def test_environment_has_the_newest_python_that_runs(tmp_path):
    done = make_environment(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "venv" / "python").read_text() == "3.13.2"
    assert done.stderr.startswith("Python 3.13.2 (python3.13) is used; set PYTHON to another Python")
    assert done.stderr.count("\n") == 1


def test_environment_has_the_python_that_the_user_chose(tmp_path):
    assert make_environment(tmp_path, PYTHON="python3.12").returncode == 0
    assert (tmp_path / "venv" / "python").read_text() == "3.12.10"


@pytest.mark.parametrize("python", ["python3.14", "python3.15", "nosuch"])
def test_python_that_does_not_work_is_refused(python, tmp_path):
    done = make_environment(tmp_path, PYTHON=python)
    assert done.returncode == 1
    assert done.stderr.startswith("error: found ")
    assert "expected a Python from 3.11 to 3.14" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_console_commands_are_functions_of_the_package():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() == {"dualmcmc", "dualmcmc-study"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
