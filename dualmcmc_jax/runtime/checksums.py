"""Checksums that tell whether a checkpoint gives back the arrays that were saved."""

import hashlib
from typing import Any

import jax
import numpy as np


def checksums(tree: Any) -> dict[str, str]:
    """Return the sha256 of every array of a tree of host arrays, by its path.

    They are needed because Orbax restores flipped bytes without a word.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    digest = lambda x: hashlib.sha256(f"{x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes()).hexdigest()
    return {jax.tree_util.keystr(path): digest(np.asarray(leaf)) for path, leaf in leaves}


class Damaged(ValueError):
    """An error of a checkpoint that does not hold what was saved."""


def check_record(record: Any, restored: dict[str, str]) -> None:
    """Raise Damaged unless a checkpoint's record holds the checksums of what was restored, and no others."""
    saved = record.get("checksums") if isinstance(record, dict) else None
    if not isinstance(saved, dict):
        raise Damaged("its record holds no checksums")
    differing = sorted(name for name in saved.keys() | restored.keys() if saved.get(name) != restored.get(name))
    if differing:
        raise Damaged(f"{len(differing)} arrays are not what was saved, the first {differing[0]}")
