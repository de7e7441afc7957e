"""Checks of configs: what each field may hold, and whether a config is that of a run."""

import json
import math
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from dualmcmc_jax.configs import default
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.models.build import NETWORKS
from dualmcmc_jax.models.layers import NORMS
from dualmcmc_jax.runtime import storage, workdirs

CHOICES = {
    **{f"{net}.kind": tuple(kinds) for net, kinds in NETWORKS.items()},
    **{f"{chain}.sampler": tuple(SAMPLERS) for chain in ("x_chain", "z_chain")},
    "generator.norm": tuple(NORMS),
    "x_chain.init": ("generator", "noise", "persistent"),
    "z_chain.init": ("encoder", "noise", "persistent"),
    "health.policy": ("stop", "rollback"),
    "train.compute_dtype": ("float32", "bfloat16", "tensorfloat32", "float64"),
}
AT_LEAST_ONE = (
    "generator.latent_dim",
    "z_chain.num_steps",
    "train.num_steps",
    "train.batch_size",
    "checkpoint.every",
    "checkpoint.keep",
    "log.every",
    "log.images_every",
    "log.num_images",
    "evaluation.batch_size",
    "evaluation.light_samples",
)
POSITIVE = ("energy.temperature", "generator.variance", "x_chain.step_size", "z_chain.step_size", "optimizer.decay")
BELOW_ONE = ("optimizer.b1", "optimizer.b2", "train.ema_decay")
FREE = ("train.num_steps", "train.unroll", "train.deterministic", "health", "log", "checkpoint", "evaluation")
"""Fields and sections that may change between two starts of a run: they leave the mathematics of a step alone."""


def check(config: ConfigDict) -> None:
    """Check that each field holds a value that a run can have.

    Numbers of which nothing else is said must be finite and not negative. Whether networks, data and devices fit
    together is checked where they meet.

    Raises:
      ValueError: a field does not; the message names the first one, what was found and what was expected.
    """
    kinds = {name: type(value) for name, value in fields(default.get_config()).items()}
    for name, value in fields(config).items():
        kind = kinds.get(name, type(value))
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
            expected = f"a {kind.__name__}"
        elif name == "evaluation.ood":
            expected = None if all(isinstance(item, str) for item in value) else "a tuple of data sources"
        elif name == "evaluation.x_chain":
            expected = None if not value or _is_chain(value) else "() or (num_steps, step_size, temperature)"
        elif kind is tuple:
            integers = all(isinstance(item, int) and item >= 0 for item in value)
            expected = None if integers else "a tuple of integers, 0 or more"
            if name == "data.shape" and integers and not (value and all(value)):
                expected = "a tuple of positive integers"
            if name == "data.crop" and integers and value and not _is_box(value):
                expected = "(left, top, right, bottom) with left < right and top < bottom"
        elif name in CHOICES:
            expected = None if value in CHOICES[name] else f"one of {', '.join(map(repr, CHOICES[name]))}"
        elif name == "train.seed":
            expected = None if 0 <= value < 2**63 else "an integer from 0 to 2**63 - 1"
        elif name in AT_LEAST_ONE:
            expected = None if value >= 1 else "1 or more"
        elif name in POSITIVE:
            expected = None if 0 < value < math.inf else "a positive number"
        elif name in BELOW_ONE:
            expected = None if 0 <= value < 1 else "at least 0 and below 1"
        else:
            number = isinstance(value, int | float)
            expected = None if not number or 0 <= value < math.inf else "0 or a positive number"
        if expected:
            raise ValueError(f"{name}: found {value!r}, expected {expected}")


def _is_chain(value):
    numbers = len(value) == 3 and all(isinstance(item, int | float) for item in value)
    return numbers and isinstance(value[0], int) and value[0] >= 0 and all(0 < item < math.inf for item in value[1:])


def _is_box(crop):
    return len(crop) == 4 and crop[0] < crop[2] and crop[1] < crop[3]


def check_run(workdir: Path, config: ConfigDict) -> None:
    """Check that a workdir holds no run, or a run of this config but for the free fields.

    Raises:
      ValueError: the run is of another config, or its config.json cannot be read.
    """
    stored = workdirs.read_config(workdir)
    if stored is not None:
        compare(workdir / "config.json", stored, config)


def compare(path: Path, stored: dict[str, Any], config: ConfigDict) -> None:
    """Check that a config is the one stored in a file, but for the free fields.

    A field that the file lacks, because it was written before there was this field, has its default there.

    Raises:
      ValueError: some fields differ; the message names the first five.
    """
    try:
        there = _flat(stored)
    except ValueError as error:
        raise ValueError(f"{storage.shown(path)}: {error}, expected the config of a run") from error
    there = json.loads(json.dumps(fields(default.get_config()) | there))
    here = json.loads(json.dumps(fields(config)))
    differing = [
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name) and not any(f"{name}.".startswith(f"{free}.") for free in FREE)
    ]
    if differing:
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        what = "; ".join(differing[:5]) + more
        raise ValueError(f"{storage.shown(path)}: a run of another config: {what}")


def stored_config(workdir: Path) -> ConfigDict:
    """Read the config of the run in a workdir, and check it.

    Raises:
      ValueError: there is no run, or its config is not valid.
    """
    shown = storage.shown(workdir / "config.json")
    stored = workdirs.read_config(workdir)
    if stored is None:
        raise ValueError(f"{shown}: found no such file, expected the config of a run")
    try:
        return as_config(stored)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}; expected the config of a run") from error


def as_config(stored: Any) -> ConfigDict:
    """Make a config of what JSON has kept of it: lists become tuples, and fields that it lacks have their defaults.

    Raises:
      ValueError: it has fields that no config has, or values that no run can have.
    """
    config = default.get_config().lock()
    try:
        flat = {k: tuple(v) if isinstance(v, list) else v for k, v in _flat(stored).items()}
        config.update_from_flattened_dict(flat)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"found {error}") from error
    check(config)
    return config


def fields(config: ConfigDict) -> dict[str, Any]:
    """Return the value of every field, by its name with dots."""
    return flatten_dict(config.to_dict(), sep=".")


def listing(config: ConfigDict) -> str:
    """Return the flags that set a config, one a line."""
    return "\n".join(f"--config.{name}={value!r}" for name, value in fields(config).items())


def _flat(stored: Any) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise ValueError(f"found a {type(stored).__name__}")
    try:
        return flatten_dict(stored, sep=".")
    except RecursionError as error:
        raise ValueError(f"found {error}") from error
