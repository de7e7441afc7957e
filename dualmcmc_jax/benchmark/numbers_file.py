"""The JSON file to which a benchmark writes its numbers."""

import json
from pathlib import Path

from dualmcmc_jax.runtime import storage


def check(path: str | None) -> None:
    """Raise ValueError unless numbers can be written to the file that --json names, if it names one."""
    if not path:
        return
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"--json: found {path}, expected a file in a folder that exists")
    if Path(path).is_dir():
        raise ValueError(f"--json: found the folder {path}, expected a file")
    if not _is_device(path):
        storage.check_writable("--json", folder)


def save(path: str | None, numbers: dict) -> None:
    """Replace the JSON file at `path`, if a path is given, by these numbers."""
    if not path:
        return
    text = json.dumps(numbers, indent=2) + "\n"
    if _is_device(path):
        Path(path).write_text(text)
        return
    temporary = Path(f"{path}.part")
    temporary.write_text(text)
    temporary.replace(path)


def _is_device(path: str) -> bool:
    """Return whether the path is a pipe or a device, such as /dev/stdout, which must not be replaced by a file."""
    return Path(path).exists() and not Path(path).is_file()
