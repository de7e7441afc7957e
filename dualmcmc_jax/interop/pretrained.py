"""Where is the file of some weights? In the package, on the Hugging Face Hub, at an https address, or at a path."""

from pathlib import Path

from dualmcmc_jax.runtime import storage
from dualmcmc_jax.spelling import one_of

FILE = "model.safetensors"
FOLDER = Path(__file__).parents[1] / "pretrained"
"""The weights that ship with the package: NAME/model.safetensors, as --mode=export writes it."""


def names() -> list[str]:
    """Return the names of the weights that ship with the package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{FILE}"))


def is_address(name: str) -> bool:
    """Return whether a name is hf:OWNER/NAME or the address of a file, and so no path."""
    return name.startswith(("hf:", "https:", "http:"))


def locate(argument: str, name: str, *, expected: str = "a model.safetensors file") -> Path:
    """Return the local file of weights. Download it first if the name is an address and the file is not in the cache.

    A file that exists is preferred to shipped weights of the same name.

    Args:
      argument: the caller's name of this argument, for error messages.
      name: hf:OWNER/NAME, an https address, a path, or the name of shipped weights.
      expected: what a path may name, for error messages.

    Raises:
      ValueError: there are no such weights, or the download failed.
    """
    from dualmcmc_jax.interop import download  # imported late: it imports JAX, which --help does not need

    if name.startswith("hf:"):
        return download.from_hub(argument, name)
    if is_address(name):
        return download.from_address(argument, name)
    path = storage.local_path(argument, name, expected=expected)
    if path.is_file():
        return path
    if name in names():
        return FOLDER / name / FILE
    choices = f"{expected}, hf:OWNER/NAME, an https address, or the name of shipped weights, {one_of(name, names())}"
    raise ValueError(f"{argument}: found nothing at {name}, expected {choices}")
