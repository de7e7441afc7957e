"""How is a checkpoint of the authors' PyTorch code imported? Conversion of a .pth file to a train state.

A checkpoint is a dict with the state_dicts of the networks: netE, netG and netI. It may also contain the state_dicts
of their Adam optimizers: optE, optG and optI. PyTorch is not needed to read the file, and no code in the file is
executed.
"""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dualmcmc_jax import models, torch_reader
from dualmcmc_jax.interop import torch_names
from dualmcmc_jax.models.build import Params
from dualmcmc_jax.training import optimizers
from dualmcmc_jax.training import state as train_state

_log = logging.getLogger(__name__)


def convert(path: Path, config, *, step: int | None = None):
    """Convert a checkpoint of the authors' code to a train state.

    Args:
      path: the .pth file.
      config: the full config. All three networks must be residual networks, with spectral norm in the energy.
      step: number of updates made so far. None: the number of updates in the states of the optimizers, or 0 if the file
        has no optimizers.

    Returns:
      The train state.

    Raises:
      ValueError: the file is not a checkpoint of the authors' code, or its tensors do not fit the networks of the
        config. In the second case, one warning is logged for each tensor that does not fit.
    """
    nets = models.build(config)
    for net in Params._fields:
        if not getattr(nets, net).has_torch_names:
            raise ValueError(f"{net}.kind: found {config[net].kind!r}, expected 'resnet', as in cifar10 or celeba64")
    if not config.energy.spectral_norm:
        raise ValueError("energy.spectral_norm: found False, expected True, as in the authors' code")
    if config.energy.activation != "relu":
        found = f"found {config.energy.activation!r}, expected 'relu'"
        raise ValueError(f"energy.activation: {found}, as in the authors' code")
    shapes = jax.eval_shape(lambda: train_state.create(config, nets, optimizers.build(config, 1))).params
    content = torch_reader.load(path)
    tensors = {net: _state_dict(path, content, torch_names.NAMES[net]) for net in Params._fields}
    wrong = [line for net in tensors for line in torch_names.problems(net, getattr(shapes, net), tensors[net])]
    _refuse(path, wrong)  # first: the optimizers' tensors are found by the names of the networks' parameters
    moments = {net: None for net in tensors}
    for net, torch_name in torch_names.NAMES.items():
        names = [name for name in tensors[net] if torch_names.is_parameter(name)]
        optimizer_name = f"opt{torch_name[-1]}"
        adam = _adam(path, content, optimizer_name, names)
        if adam:
            like, buffers = getattr(shapes, net), {k: v for k, v in tensors[net].items() if k not in names}
            for label in ("exp_avg", "exp_avg_sq"):
                lines = torch_names.problems(net, like, buffers | adam[label])
                wrong += [f"{optimizer_name} {label} {line}" for line in lines]
            if not wrong:
                trees = (torch_names.parameters(net, like, adam[label]) for label in ("exp_avg", "exp_avg_sq"))
                moments[net] = optimizers.Moments(*trees, adam["step"])
    _refuse(path, wrong)
    if step is not None and step >= 2**31:
        raise ValueError(f"step: found {step}, expected at most {2**31 - 1}")
    if step is None:
        step = max((adam.count for adam in moments.values() if adam), default=0)
    params = Params(**{net: torch_names.parameters(net, getattr(shapes, net), tensors[net]) for net in tensors})
    vectors = torch_names.vectors(shapes.energy, tensors["energy"])
    return train_state.resumed(config, params, vectors, step=step, moments=Params(**moments))


def _refuse(path: Path, wrong: list[str]) -> None:
    """Log a warning for each tensor that does not fit, and raise ValueError if there are any."""
    for line in wrong:
        _log.warning("%s", line)
    if wrong:
        found = f"{len(wrong)} tensors that do not fit the config (listed above)"
        raise ValueError(f"{path}: found {found}, expected the config's widths and latent_dim")


def _state_dict(path: Path, content: Any, name: str) -> dict[str, Any]:
    """Return the tensors of a network by their names."""
    state_dict = content.get(name) if isinstance(content, dict) else None
    if not isinstance(state_dict, dict):
        names = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: found {names or 'nothing'}, expected netE, netG and netI, each a state_dict")
    tensors = {str(key).removeprefix("module."): value for key, value in state_dict.items()}  # DataParallel's prefix
    not_tensors = [key for key, value in tensors.items() if not isinstance(value, np.ndarray)]
    if not_tensors:
        kind = type(tensors[not_tensors[0]]).__name__
        raise ValueError(f"{path}: found {name}.{not_tensors[0]} of type {kind}, expected a tensor")
    return tensors


def _adam(path: Path, content: dict, name: str, names: list[str]) -> dict[str, Any] | None:
    """Return the state of a network's Adam, or None if the file does not have it.

    The state is a dict of "exp_avg" and "exp_avg_sq", which are dicts of tensors by name, and the integer "step".
    """
    if name not in content:
        return None
    try:
        states = content[name]["state"]
        if not states:
            return None
        moments = {label: {n: states[i][label] for i, n in enumerate(names)} for label in ("exp_avg", "exp_avg_sq")}
        step = int(states[0]["step"])
        arrays = (x for tensors in moments.values() for x in tensors.values())
        if not 0 <= step < 2**31 or not all(isinstance(x, np.ndarray) for x in arrays):
            raise ValueError(f"step {step}")
        return moments | {"step": step}
    except (TypeError, LookupError, ValueError, OverflowError) as error:
        found = f"an invalid {name} ({type(error).__name__}: {error})"
        raise ValueError(f"{path}: found {found}, expected the state of Adam for {len(names)} parameters") from error
