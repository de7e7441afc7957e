"""Checksums that detect whether restored arrays differ from the saved ones."""

import hashlib
from typing import Any

import jax
import numpy as np


def checksums(tree: Any) -> dict[str, str]:
    """Return {path of the array in the tree: sha256} for a tree of host arrays.

    Orbax restores arrays with flipped bits without raising an error. The checksums detect flipped bits.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    digest = lambda x: hashlib.sha256(f"{x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes()).hexdigest()
    return {jax.tree_util.keystr(path): digest(np.asarray(leaf)) for path, leaf in leaves}


class Damaged(ValueError):
    """Raised if the content of a checkpoint differs from what was saved."""


def check_record(record: Any, restored: dict[str, str]) -> None:
    """Raise Damaged unless the checksums in a checkpoint's record equal those of the restored arrays."""
    saved = record.get("checksums") if isinstance(record, dict) else None
    if not isinstance(saved, dict):
        raise Damaged("its record contains no checksums")
    differing = sorted(name for name in saved.keys() | restored.keys() if saved.get(name) != restored.get(name))
    if differing:
        raise Damaged(f"{len(differing)} arrays differ from what was saved, the first is {differing[0]}")
