"""Turns a checkpoint of the authors' PyTorch code into a workdir that samples, evaluates and goes on training.

  python -m dualmcmc_jax.torch_import CKPT.pth --config=cifar10 --workdir=DIR

flags:
  --config=NAME or FILE         the networks it holds: cifar10, celeba64, or a Python file
  --config.SECTION.FIELD=VALUE  sets one field, such as --config.energy.widths="(256,256,256,256)"
  --workdir=DIR                 folder to make
  --step=N                      updates it has had; default: what its optimisers say, or 0 without them
  --debug                       show the traceback of an error

CKPT.pth holds netE, netG and netI, the networks' state_dicts, and perhaps optE, optG and optI, those of their Adams.
PyTorch is not needed, and nothing in the file is executed.
"""

import logging
from pathlib import Path
from typing import Any

from dualmcmc_jax import config_check
from dualmcmc_jax.cli import command_line

_log = logging.getLogger("dualmcmc_jax.torch_import")  # __name__ is "__main__" as a program


def main(argv: list[str]) -> None:
    """The program, after its flags are parsed."""
    logging.getLogger("absl").setLevel(logging.FATAL)  # Orbax warns of what is meant
    config = command_line.CONFIG.value
    config_check.check(config)
    command_line.refuse_others("workdir", "step")
    if not command_line.WORKDIR.value:
        raise ValueError("--workdir: found nothing, expected a folder to make")
    from dualmcmc_jax.cli import startup
    from dualmcmc_jax.runtime import checkpoints, storage

    startup.start(config)
    state = convert(storage.local_path("CKPT", argv[1]), config, step=command_line.STEP.value)
    workdir = storage.open_workdir(command_line.WORKDIR.value)
    try:
        checkpoints.begin(config, workdir, state)
    finally:
        storage.close(workdir)
    print(f"wrote {command_line.WORKDIR.value}, at step {int(state.step)}")


def convert(path: Path, config, *, step: int | None = None):
    """The train state that a .pth file of the authors' holds.

    Args:
      path: the file.
      config: the whole config, of residual networks.
      step: updates it has had; None: as many as its optimisers say, or 0 without them.

    Raises:
      ValueError: it is no such file, or its tensors are not those of the config's networks; all that differ are named.
    """
    import jax

    from dualmcmc_jax import models, torch_reader
    from dualmcmc_jax.interop import torch_names
    from dualmcmc_jax.training import optimizers
    from dualmcmc_jax.training import state as train_state
    from dualmcmc_jax.training.params import Params

    for net in Params._fields:
        if config[net].kind != "resnet":
            raise ValueError(f"{net}.kind: found {config[net].kind!r}, expected 'resnet', as in cifar10 or celeba64")
    if not config.energy.spectral_norm:
        raise ValueError("energy.spectral_norm: found False, expected True, as the authors' is")
    shapes = jax.eval_shape(
        lambda: train_state.create(config, models.build(config), optimizers.build(config, 1))
    ).params
    content = torch_reader.load(path)
    tensors = {net: _state_dict(path, content, torch_names.NAMES[net]) for net in Params._fields}
    wrong = [line for net in tensors for line in torch_names.problems(net, getattr(shapes, net), tensors[net])]
    moments = {net: None for net in tensors}
    for net, theirs in torch_names.NAMES.items():
        names = [name for name in tensors[net] if torch_names.is_parameter(name)]
        adam = _adam(path, content, f"opt{theirs[-1]}", names)
        if adam and not wrong:
            like, buffers = getattr(shapes, net), {k: v for k, v in tensors[net].items() if k not in names}
            for label in ("exp_avg", "exp_avg_sq"):
                lines = torch_names.problems(net, like, buffers | adam[label])
                wrong += [f"opt{theirs[-1]} {label} {line}" for line in lines]
            if not wrong:
                trees = (torch_names.parameters(net, like, adam[label]) for label in ("exp_avg", "exp_avg_sq"))
                moments[net] = optimizers.Moments(*trees, adam["step"])
    if wrong:
        for line in wrong:
            _log.warning(command_line.one_line(line))
        found = f"{len(wrong)} tensors that do not fit (above)"
        raise ValueError(f"{path}: found {found}, expected those of --config's widths and latent_dim")
    if step is not None and step >= 2**31:
        raise ValueError(f"--step: found {step}, expected at most {2**31 - 1}")
    if step is None:
        step = max((adam.count for adam in moments.values() if adam), default=0)
    params = Params(**{net: torch_names.parameters(net, getattr(shapes, net), tensors[net]) for net in tensors})
    vectors = torch_names.vectors(shapes.energy, tensors["energy"])
    return train_state.resumed(config, params, vectors, step=step, moments=Params(**moments))


def _state_dict(path: Path, content: Any, name: str) -> dict[str, Any]:
    import numpy as np

    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, dict):
        has = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: found {has or 'nothing'}, expected netE, netG and netI, each a state_dict")
    found = {str(key).removeprefix("module."): value for key, value in found.items()}  # of DataParallel
    odd = [key for key, value in found.items() if not isinstance(value, np.ndarray)]
    if odd:
        raise ValueError(f"{path}: found {name}.{odd[0]} that is no tensor, expected one")
    return found


def _adam(path: Path, content: dict, name: str, names: list[str]) -> dict[str, Any] | None:
    """{"exp_avg": tensors by name, "exp_avg_sq": likewise, "step": int} of an optimiser; None if it is not there."""
    import numpy as np

    if name not in content:
        return None
    try:
        states = content[name]["state"]
        if not states:
            return None
        found = {label: {n: states[i][label] for i, n in enumerate(names)} for label in ("exp_avg", "exp_avg_sq")}
        step = int(states[0]["step"])
        arrays = (x for tensors in found.values() for x in tensors.values())
        if not 0 <= step < 2**31 or not all(isinstance(x, np.ndarray) for x in arrays):
            raise ValueError(f"step {step}")
        return found | {"step": step}
    except (TypeError, LookupError, ValueError, OverflowError) as error:
        what = f"{name} that is not the state of an Adam of {len(names)} parameters ({type(error).__name__}: {error})"
        raise ValueError(f"{path}: found {what}, expected one") from error


if __name__ == "__main__":
    command_line.run(main, help=__doc__, argument="CKPT.pth")
