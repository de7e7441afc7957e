"""Whether the arrays that a checkpoint gives back are those that were saved."""

import hashlib
from typing import Any

import jax
import numpy as np

from dualmcmc_jax.training.state import TrainState


def checksums(state: TrainState) -> dict[str, str]:
    """sha256 of every array of a host state, by its path; Orbax would restore flipped bytes without a word."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    digest = lambda x: hashlib.sha256(f"{x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes()).hexdigest()
    return {jax.tree_util.keystr(path): digest(np.asarray(leaf)) for path, leaf in leaves}


class Damaged(ValueError):
    """What was read is not what was saved."""


def check_record(record: Any, restored: dict[str, str]) -> None:
    """Raises Damaged unless a checkpoint's record holds the checksums of what was restored, and no others."""
    saved = record.get("checksums") if isinstance(record, dict) else None
    if not isinstance(saved, dict):
        raise Damaged("its record holds no checksums")
    differing = sorted(name for name in saved.keys() | restored.keys() if saved.get(name) != restored.get(name))
    if differing:
        raise Damaged(f"{len(differing)} arrays are not what was saved, the first {differing[0]}")
