"""How is a trained model exported? As a safetensors file with the parameters, their average, and the config.

The file does not contain the optimizer states, the random key, or the persistent chains. If training continues from the
file, all of these have their initial values.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
_MAX_HEADER = 10**7  # bytes; that of the largest config has 40,000
_MAX_CHAINS = 1000
"""Maximum size of the persistent chains, which the file does not contain, in multiples of the size of the file."""
_DTYPES = {"float32": "F32", "float64": "F64"}
"""The names of dtypes in the header."""


class Weights(NamedTuple):
    """The content of a file.

    Attributes:
      step: number of updates made so far.
      params: the trained parameters, before spectral norm.
      average: their average, after spectral norm.
      vectors: the singular vectors of spectral norm.
    """

    step: int
    params: Params
    average: Params
    vectors: dict[str, tuple[np.ndarray, np.ndarray]]

    def state(self, config) -> TrainState:
        """Return a train state. All fields that the file does not contain have their initial values."""
        state = train_state.resumed(config, self.params, self.vectors, step=self.step)
        return state._replace(average=self.average)


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

    The config and the shapes in the header are checked before any tensor is read. So the memory that this function
    needs is bounded by the size of the file, whatever the header says.

    Args:
      path: the file.

    Returns:
      The config and the `Weights`.

    Raises:
      ValueError: the file was not written by `write`, is damaged, or its tensors do not fit its config.
    """
    problem = lambda what: ValueError(f"{path}: found {what}, expected a model.safetensors of dualmcmc_jax")
    if not path.is_file():
        raise problem("no such file")
    try:
        header, found = _each_tensor(path, lambda file, name: _kind(file.get_slice(name)))
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise problem(str(error).splitlines()[0]) from error
    if header.get("format") != FORMAT or not header.get("step", "").isdecimal() or len(header["step"]) > 9:
        raise problem(f"the header {dict(sorted(header.items())[:3])}")
    try:
        config = config_check.as_config(json.loads(header["config"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise problem(f"an invalid config in the header ({error})") from error
    shapes = train_state.abstract(config)
    expected = {name: (list(x.shape), _DTYPES[x.dtype.name]) for name, x in _flat(shapes).items()}
    wrong = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    if wrong:
        raise problem(f"{len(wrong)} tensors that do not fit the config in the header, such as {min(wrong)}")
    chains, size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes.chains)), path.stat().st_size
    if chains > _MAX_CHAINS * size:
        raise problem(f"persistent chains of {chains / 1e6:,.0f} MB for a file of {size / 1e6:,.2f} MB")
    try:
        _, tensors = _each_tensor(path, lambda file, name: file.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise problem(str(error).splitlines()[0]) from error
    if not all(np.isfinite(x).all() for x in tensors.values()):
        raise problem("NaN or infinity")
    trees = unflatten_dict(tensors, sep=".")
    vectors = {path: tuple(tensors[f"vectors.{path.replace('/', '.')}.{k}"] for k in "uv") for path in shapes.vectors}
    return config, Weights(int(header["step"]), Params(**trees["params"]), Params(**trees["average"]), vectors)


def _each_tensor(path: Path, get: Callable[[Any, str], Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the metadata of a file, and {name: get(open file, name)} of its tensors."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if _MAX_HEADER < size <= path.stat().st_size:
        raise ValueError(f"a header of {size / 1e6:,.0f} MB")
    with safe_open(path, "numpy") as file:
        return file.metadata() or {}, {name: get(file, name) for name in file.keys()}  # noqa: SIM118


def _kind(tensor) -> tuple[list[int], str]:
    return tensor.get_shape(), tensor.get_dtype()


def _flat(state: TrainState | Weights) -> dict[str, jax.Array]:
    """Return the tensors of the file by their names."""
    vectors = {path.replace("/", "."): dict(zip("uv", pair, strict=True)) for path, pair in state.vectors.items()}
    trees = {"params": state.params._asdict(), "average": state.average._asdict(), "vectors": vectors}
    return flatten_dict(trees, sep=".")
