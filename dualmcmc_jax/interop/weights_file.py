"""How is a trained model exported? As a safetensors file with the parameters, their average, and the config.

The file does not contain the optimizer states, the random key, or the persistent chains. If training continues from the
file, all of these have their initial values. Parameters that equal their average are stored once. Tensors may be stored
in bfloat16, and become float32 when they are read.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict
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
_DTYPES = {"float32": ("F32", "BF16"), "float64": ("F64",)}
"""The names in the header that a tensor of each dtype may have."""


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


def write(path: Path, config, state: TrainState | Weights) -> None:
    """Write the parameters, their average and the vectors of spectral norm to a file.

    The tensors are named by their paths in the train state, such as params.energy.mlp.hidden0.kernel. If all parameters
    equal their average, only the average is written. An existing file is replaced only when the new file is complete.

    Args:
      path: the file to write.
      config: the full config, which is stored in the header.
      state: the train state, or weights that were read. Sampling needs only their average, so a file of
        weights._replace(params=weights.average) has half the size.
    """
    contiguous = lambda x: np.ascontiguousarray(x).reshape(np.shape(x))  # NumPy returns [1] for scalars
    tensors = {name: contiguous(x) for name, x in _flat(state).items()}
    if jax.tree.all(jax.tree.map(np.array_equal, state.params, state.average)):
        tensors = {name: x for name, x in tensors.items() if not name.startswith("params.")}
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
    config, step, found = _read_header(path)
    shapes = train_state.abstract(config)
    expected = {name: (list(x.shape), _DTYPES[x.dtype.name]) for name, x in _flat(shapes).items()}
    if not any(name.startswith("params.") for name in found):
        expected = {name: kind for name, kind in expected.items() if not name.startswith("params.")}
    wrong = [name for name in expected.keys() | found.keys() if not _fits(found.get(name), expected.get(name))]
    if wrong:
        raise _problem(path, f"{len(wrong)} tensors that do not fit the config in the header, such as {min(wrong)}")
    chains, size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes.chains)), path.stat().st_size
    if chains > _MAX_CHAINS * size:
        raise _problem(path, f"persistent chains of {chains / 1e6:,.0f} MB for a file of {size / 1e6:,.2f} MB")
    try:
        _, tensors = _each_tensor(path, lambda file, name: _without_bfloat16(file.get_tensor(name)))
    except (SafetensorError, OSError) as error:
        raise _problem(path, str(error).splitlines()[0]) from error
    if not all(np.isfinite(x).all() for x in tensors.values()):
        raise _problem(path, "NaN or infinity")
    trees = unflatten_dict(tensors, sep=".")
    vectors = {path: tuple(tensors[f"vectors.{path.replace('/', '.')}.{k}"] for k in "uv") for path in shapes.vectors}
    params = trees.get("params") or jax.tree.map(np.copy, trees["average"])  # a donated state shares no buffers
    return config, Weights(step, Params(**params), Params(**trees["average"]), vectors)


def read_config(path: Path) -> ConfigDict:
    """Read and check the config of a file that `write` has written. No tensor is read, and JAX needs no device.

    Raises:
      ValueError: the file was not written by `write`, or its header is damaged.
    """
    config, _, _ = _read_header(path)
    return config


def _problem(path: Path, what: str) -> ValueError:
    return ValueError(f"{path}: found {what}, expected a model.safetensors of dualmcmc_jax")


def _read_header(path: Path) -> tuple[ConfigDict, int, dict[str, tuple[list[int], str]]]:
    """Return the config, the step, and {name: (shape, dtype)} of the tensors of a file."""
    if not path.is_file():
        raise _problem(path, "no such file")
    try:
        header, found = _each_tensor(path, lambda file, name: _kind(file.get_slice(name)))
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise _problem(path, str(error).splitlines()[0]) from error
    if header.get("format") != FORMAT or not header.get("step", "").isdecimal() or len(header["step"]) > 9:
        raise _problem(path, f"the header {dict(sorted(header.items())[:3])}")
    try:
        config = config_check.as_config(json.loads(header["config"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise _problem(path, f"an invalid config in the header ({error})") from error
    return config, int(header["step"]), found


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


def _fits(found: tuple[list[int], str] | None, expected: tuple[list[int], tuple[str, ...]] | None) -> bool:
    return bool(found and expected) and found[0] == expected[0] and found[1] in expected[1]


def _without_bfloat16(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _flat(state: TrainState | Weights) -> dict[str, jax.Array]:
    """Return the tensors of the file by their names."""
    vectors = {path.replace("/", "."): dict(zip("uv", pair, strict=True)) for path, pair in state.vectors.items()}
    trees = {"params": state.params._asdict(), "average": state.average._asdict(), "vectors": vectors}
    return flatten_dict(trees, sep=".")
