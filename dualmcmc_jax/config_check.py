"""Checks of configs: whether each field has a valid value, and whether a config matches the config of a run."""

import contextlib
import json
import math
import reprlib
from collections import ChainMap
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from dualmcmc_jax import own_code
from dualmcmc_jax.configs import default
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.models.build import NETWORKS
from dualmcmc_jax.models.layers import ACTIVATIONS, NORMS
from dualmcmc_jax.runtime import storage, workdirs
from dualmcmc_jax.spelling import one_of
from dualmcmc_jax.training import objectives

OWN_CODE = (*(f"{net}.kind" for net in NETWORKS), "loss.own.function")
"""Fields that may name code of the user. This module never imports such code."""
CHOICES: dict[str, Collection[str]] = {
    **{f"{net}.kind": kinds for net, kinds in NETWORKS.items()},
    **{f"{chain}.sampler": SAMPLERS for chain in ("x_chain", "z_chain")},
    "evaluation.sampler": ChainMap(SAMPLERS, {"": None}),
    "evaluation.features": ("", "mnist_classifier"),
    "energy.activation": ACTIVATIONS,
    "generator.norm": NORMS,
    "x_chain.init": ("generator", "noise", "persistent"),
    "z_chain.init": ("encoder", "noise", "persistent"),
    "health.policy": ("stop", "rollback"),
    "train.compute_dtype": ("float32", "bfloat16", "tensorfloat32", "float64"),
}
"""The values of each field. The tables are not copied, so rows that are added later count."""
AT_LEAST_ONE = (
    "generator.latent_dim",
    "z_chain.num_steps",
    "x_chain.proposals",
    "x_chain.num_leapfrog_steps",
    "z_chain.num_leapfrog_steps",
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
POSITIVE = (
    "energy.temperature",
    "generator.variance",
    "x_chain.step_size",
    "x_chain.broad_std",
    "z_chain.step_size",
    *(f"{chain}.{kind}_annealing" for chain in ("x_chain", "z_chain") for kind in ("step", "temperature")),
    "optimizer.decay",
)
BELOW_ONE = ("optimizer.b1", "optimizer.b2", "train.ema_decay")
MAX_LENGTH = 100
"""Maximum number of items of a tuple, such as the widths of a network's layers."""
FREE = ("train.num_steps", "train.unroll", "train.deterministic", "health", "log", "checkpoint", "evaluation")
"""Fields and sections that may change when a run resumes. They do not change the mathematics of an update."""
NETWORKS_AND_DATA = (*(f"{network}." for network in NETWORKS), "data.shape")
"""Beginnings of the names of fields that a run must share with the weights from which its training starts."""
NOT_OF_WEIGHTS = ("energy.temperature", "generator.variance")
"""The fields of these sections that may differ, because they are constants of the densities."""
RESULTS = (
    "model.safetensors",
    "export/*/model.safetensors",
    "evaluation/*/metrics.json",
    "samples/samples.npz",
    "samples/*/samples.npz",
)
"""Files in a workdir that the program makes from a checkpoint."""


def check(config: ConfigDict) -> None:
    """Check that each field of a config has a valid value.

    A number without a rule in the tables above must be finite and not negative. Other modules check whether the
    networks, the data and the devices fit together.

    Raises:
      ValueError: a field has an invalid value. The message names the first such field.
    """
    kinds = {name: type(value) for name, value in fields(default.get_config()).items()}
    for name, value in fields(config).items():
        _check_size(name, value)
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
        elif name in OWN_CODE and own_code.is_name(value):
            expected = None
        elif name == "loss.own.function":
            expected = None if not value else "MODULE:FUNCTION, FILE.py:FUNCTION or nothing"
        elif name == "loss.own.trains":
            expected = None if objectives.names(value) else "names of networks, such as 'energy' or 'generator,encoder'"
        elif name in CHOICES:
            expected = None if value in CHOICES[name] else one_of(value, CHOICES[name])
        elif name == "evaluation.resample":
            expected = None if value == -1 or 0 <= value < math.inf else "-1 (as in training), 0 or a positive number"
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
    for name in ("x_chain.resample", "evaluation.resample"):
        if fields(config)[name] > 0:
            check_resampling(name, config)
    if config.energy.kind != "resnet" and config.energy.activation != "relu":
        expected = f"'relu', the default, because energy.kind={config.energy.kind!r} has no such choice"
        raise ValueError(f"energy.activation: found {config.energy.activation!r}, expected {expected}")
    if config.energy.confinement and (len(config.data.shape) == 1 or config.energy.kind == "quadratic"):
        found = f"{config.energy.confinement!r} with data.shape={tuple(config.data.shape)}"
        expected = "0, or images and another energy.kind than 'quadratic'"
        raise ValueError(f"energy.confinement: found {found}, expected {expected}")
    sampler = config.z_chain.sampler
    if couples_examples(config) and SAMPLERS[sampler].is_metropolis:
        expected = "'langevin', because batch statistics couple the chains; or generator.norm='group'"
        raise ValueError(f"z_chain.sampler: found {sampler!r}, expected {expected}")


def couples_examples(config: ConfigDict) -> bool:
    """Return whether the generator couples the examples of a batch, by batch normalization."""
    return config.generator.kind == "resnet" and config.generator.norm == "batch"


def check_resampling(name: str, config: ConfigDict) -> None:
    """Check that resampling has a meaning for a config.

    Args:
      name: the field that turns resampling on, "x_chain.resample" or "evaluation.resample".
      config: the full config.

    Raises:
      ValueError: resampling has no meaning. The message names the field to change.
    """
    chain, share, trained = config.x_chain, fields(config)[name], objectives.trained(config)
    if share > chain.proposals:
        raise ValueError(f"{name}: found {share}, expected at most x_chain.proposals ({chain.proposals})")
    if chain.broad_proposals >= chain.proposals:
        expected = f"fewer than x_chain.proposals ({chain.proposals})"
        raise ValueError(f"x_chain.broad_proposals: found {chain.broad_proposals}, expected {expected}")
    if chain.init != "generator":
        expected = f"'generator', because {name}={share} resamples proposals of the generator"
        raise ValueError(f"x_chain.init: found {chain.init!r}, expected {expected}")
    if not chain.start_std:
        expected = f"a positive number, because {name}={share} needs proposals that have a density"
        raise ValueError(f"x_chain.start_std: found {chain.start_std}, expected {expected}")
    if couples_examples(config):
        expected = f"'group', because batch statistics couple the proposals of {name}={share}"
        raise ValueError(f"generator.norm: found 'batch', expected {expected}")
    if any(config.loss.generated.values()):
        raise ValueError(f"{name}: found {share}, expected 0, because loss.generated needs latents from the prior")
    for network in ("generator", "encoder"):
        if network not in trained:
            expected = f"0, because no objective trains the {network}, whose density is part of the weights"
            raise ValueError(f"{name}: found {share}, expected {expected}")


def _check_size(name: str, value: Any) -> None:
    """Raise ValueError if a value, which may come from a file of someone else, has too many or too large numbers."""
    items = value if isinstance(value, tuple) else (value,)
    if len(items) > MAX_LENGTH:
        raise ValueError(f"{name}: found {len(items)} values, expected {MAX_LENGTH} at most")
    if any(isinstance(item, int) and item >= 2**63 for item in items):
        expected = "an integer from 0 to 2**63 - 1" if name == "train.seed" else "integers below 2**63"
        raise ValueError(f"{name}: found {reprlib.repr(value)}, expected {expected}")


def _is_chain(value):
    numbers = len(value) == 3 and all(isinstance(item, int | float) for item in value)
    return numbers and isinstance(value[0], int) and value[0] >= 0 and all(0 < item < math.inf for item in value[1:])


def _is_box(crop):
    return len(crop) == 4 and crop[0] < crop[2] and crop[1] < crop[3]


def check_run(workdir: Path, config: ConfigDict, *, other_source: bool = False) -> None:
    """Check that a workdir is new or holds a run with the given config. Fields in `FREE` may differ.

    A run that never saved a checkpoint may have any config, because a new run can replace it. A run whose checkpoints
    were deleted may not, because a new run would replace its results.

    Args:
      workdir: the folder of the run.
      config: the config to compare.
      other_source: whether data.source may differ if the run has checkpoints and digests of its data. The caller
        must then compare the digests, as `workdirs.claim` does.

    Raises:
      ValueError: the run has another config, or its config.json is missing or cannot be read.
    """
    stored = workdirs.read_config(workdir)
    left = "checkpoints" if workdirs.has_checkpoints(workdir) else _results(workdir, stored)
    if stored is None:
        if left:
            shown = storage.shown(workdir / "config.json")
            expected = f"the config of the run whose {left} are there; restore the file, or choose another workdir"
            raise ValueError(f"{shown}: found no such file, expected {expected}")
        return
    if not left and workdirs.never_saved(workdir):
        return
    has_digests = left == "checkpoints" and (workdir / workdirs.DIGESTS).exists()
    free = (*FREE, "data.source") if other_source and has_digests else FREE
    try:
        compare(workdir / "config.json", stored, config, free=free)
    except ValueError as error:
        lost = f", whose {left} are there without its checkpoints" if left not in ("", "checkpoints") else ""
        expected = "the config of the run, which is used without --config, or a new folder for this one: --workdir=DIR"
        raise ValueError(f"{error}{lost}; expected {expected}") from error


def _results(workdir: Path, stored: dict[str, Any] | None) -> str:
    """Return a phrase that names results which show that a run had a checkpoint, or "" if there are none.

    Args:
      workdir: the folder of the run.
      stored: the content of its config.json, or None if the file does not exist.
    """
    from dualmcmc_jax.runtime import metric_writer  # imported late: tqdm reads TQDM_DISABLE when it is imported

    for name in RESULTS:
        if any(workdir.glob(name)):
            return f"results ({name})"
    if workdirs.save_was_interrupted(workdir):
        return ""
    first_save, step = 1, metric_writer.last_step(workdir)
    if stored is not None:
        with contextlib.suppress(ValueError):
            config = as_config(stored)
            first_save = min(config.checkpoint.every, config.train.num_steps)
    return f"metrics of {step} updates (metrics.jsonl)" if step >= first_save else ""


def compare(path: Path, stored: dict[str, Any], config: ConfigDict, *, free: tuple[str, ...] = FREE) -> None:
    """Check that a config equals a stored config.

    If the stored config lacks a field, because an older version wrote it, the field has its default value. Two values
    of data.source are equal if they name the same file or folder. Code of the user may have moved to another folder.

    Args:
      path: the file of the stored config, for error messages.
      stored: the content of the file.
      config: the config to compare.
      free: fields and sections that may differ.

    Raises:
      ValueError: some fields differ. The message names the first five.
    """
    from dualmcmc_jax.data import sources  # imported late: tqdm reads TQDM_DISABLE when it is imported

    try:
        stored_fields = _flat(stored)
    except ValueError as error:
        raise ValueError(f"{storage.shown(path)}: {error}, expected the config of a run") from error
    stored_fields = json.loads(json.dumps(fields(default.get_config()) | stored_fields))
    given_fields = json.loads(json.dumps(fields(config)))
    if sources.same(stored_fields["data.source"], given_fields["data.source"]):
        stored_fields["data.source"] = given_fields["data.source"]
    for name in OWN_CODE:
        if own_code.same(stored_fields[name], given_fields[name]):
            stored_fields[name] = given_fields[name]
    differing = [
        f"{name} is {stored_fields.get(name)!r} in the file and {given_fields.get(name)!r} now"
        for name in sorted(stored_fields.keys() | given_fields.keys())
        if stored_fields.get(name) != given_fields.get(name)
        and not any(f"{name}.".startswith(f"{item}.") for item in free)
    ]
    if differing:
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        differences = "; ".join(differing[:5]) + more
        raise ValueError(f"{storage.shown(path)}: found a run with another config: {differences}")


def compare_networks(path: Path, stored: dict[str, Any], config: ConfigDict) -> None:
    """Check that a config has the networks of a stored config. All other fields may differ.

    Args:
      path: the file of the stored config, for error messages.
      stored: the content of the file.
      config: the config to compare.

    Raises:
      ValueError: the networks differ. The message names the first five fields that do.
    """
    of_networks = [name for name in fields(config) if name.startswith(NETWORKS_AND_DATA)]
    free = [name for name in fields(config) if name not in of_networks or name in NOT_OF_WEIGHTS]
    compare(path, stored, config, free=tuple(free))


def stored_config(workdir: Path) -> ConfigDict:
    """Read and check the config of the run in a workdir.

    Raises:
      ValueError: the workdir holds no run, or the config of the run is not valid.
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
    """Create a config from the content of a config.json. Lists become tuples, and missing fields have their defaults.

    Raises:
      ValueError: a field is unknown or has an invalid value.
    """
    config = default.get_config().lock()
    try:
        flat = {k: tuple(v) if isinstance(v, list) else v for k, v in _flat(stored).items()}
        for name, value in flat.items():
            _check_size(name, value)
        config.update_from_flattened_dict(flat)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"found {error}") from error
    check(config)
    return config


def fields(config: ConfigDict) -> dict[str, Any]:
    """Return {name: value} of all fields, with names such as "train.batch_size"."""
    return flatten_dict(config.to_dict(), sep=".")


def listing(config: ConfigDict) -> str:
    """Return the flags that set every field of a config, one flag per line."""
    return "\n".join(f"--config.{name}={value!r}" for name, value in fields(config).items())


def _flat(stored: Any) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise ValueError(f"found a {type(stored).__name__}")
    try:
        return flatten_dict(stored, sep=".")
    except RecursionError as error:
        raise ValueError(f"found {error}") from error
