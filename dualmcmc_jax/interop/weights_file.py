"""How is a trained model exported? As a safetensors file with the parameters, their average, and the config.

The file does not contain the optimizer states, the random key, or the persistent chains. If training continues from the
file, all of these have their initial values.
"""

import json
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dualmcmc_jax import config_check
from dualmcmc_jax.models.build import Params
from dualmcmc_jax.runtime import workdirs
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.state import TrainState

FORMAT = "dualmcmc_jax"


def write(path: Path, config, state: TrainState) -> None:
    """Write the parameters, their average and the vectors of spectral norm to a file.

    The tensors are named by their paths in the train state, such as params.energy.mlp.hidden0.kernel. An existing file
    is replaced only when the new file is complete.

    Args:
      path: the file to write.
      config: the full config, which is stored in the header.
      state: the train state.
    """
    tensors = {name: np.ascontiguousarray(x) for name, x in _flat(state).items()}
    header = {
        "format": FORMAT,
        "step": str(int(state.step)),
        "config": json.dumps(config.to_dict()),
    }
    workdirs.replace(path, save(tensors, header))


def read(path: Path):
    """Read a file that `write` has written.

    Args:
      path: the file.

    Returns:
      The config, and a train state. All fields that the file does not contain have their initial values.

    Raises:
      ValueError: the file was not written by `write`, is damaged, or its tensors do not fit its config.
    """
    problem = lambda what: ValueError(f"{path}: found {what}, expected a model.safetensors of dualmcmc_jax")
    if not path.is_file():
        raise problem("no such file")
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise problem(str(error).splitlines()[0]) from error
    if header.get("format") != FORMAT or not header.get("step", "").isdecimal() or len(header["step"]) > 9:
        raise problem(f"the header {dict(sorted(header.items())[:3])}")
    try:
        config = config_check.as_config(json.loads(header["config"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise problem(f"an invalid config in the header ({error})") from error
    shapes = train_state.abstract(config)
    expected = _flat(shapes)
    fits = lambda x, y: x.shape == y.shape and x.dtype == y.dtype
    wrong = [n for n in expected.keys() | tensors.keys() if n not in expected or n not in tensors]
    wrong = wrong or [n for n, x in tensors.items() if not fits(x, expected[n])]
    if wrong:
        raise problem(f"{len(wrong)} tensors that do not fit the config in the header, such as {min(wrong)}")
    if not all(np.isfinite(x).all() for x in tensors.values()):
        raise problem("NaN or infinity")
    trees = unflatten_dict(tensors, sep=".")
    vectors = {path: tuple(tensors[f"vectors.{path.replace('/', '.')}.{k}"] for k in "uv") for path in shapes.vectors}
    state = train_state.resumed(config, Params(**trees["params"]), vectors, step=int(header["step"]))
    return config, state._replace(average=Params(**trees["average"]))


def _flat(state: TrainState) -> dict[str, jax.Array]:
    """Return the tensors of the file by their names."""
    vectors = {path.replace("/", "."): dict(zip("uv", pair, strict=True)) for path, pair in state.vectors.items()}
    trees = {"params": state.params._asdict(), "average": state.average._asdict(), "vectors": vectors}
    return flatten_dict(trees, sep=".")
