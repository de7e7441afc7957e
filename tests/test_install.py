"""The launch scripts install the package and its console commands."""

import importlib
import os
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAKE_PYTHON = '#!/bin/sh\necho "$@" >> "$VENV/calls"\ntouch "$VENV/bin/dualmcmc" && chmod +x "$VENV/bin/dualmcmc"\n'


def test_package_is_installed_once_with_the_requirements(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text('PATH="$VENV/bin:$PATH"\n')
    (tmp_path / "bin" / "python").write_text(FAKE_PYTHON)
    (tmp_path / "bin" / "python").chmod(0o755)
    for _ in range(2):
        env = os.environ | {"VENV": str(tmp_path)}
        subprocess.run([ROOT / "launch" / "local.sh", "--mode=sample"], env=env, check=True, capture_output=True)
    install = "-m pip install --quiet --disable-pip-version-check -r requirements.txt -e ."
    run = "-m dualmcmc_jax.main --mode=sample"
    assert (tmp_path / "calls").read_text().splitlines() == [install, run, run]


def test_console_commands_are_functions_of_the_package():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() == {"dualmcmc", "dualmcmc-study"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
