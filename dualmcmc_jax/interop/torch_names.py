"""What are the parameters called in the authors' PyTorch code? The mapping of names and memory layouts.

| array | PyTorch | this package |
|---|---|---|
| convolution kernel | [O, I, kh, kw] | [kh, kw, I, O] |
| linear kernel | [O, I] | [I, O] |
| image | [C, H, W] | [H, W, C] |
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

Tensors = dict[str, np.ndarray]
NAMES = {"energy": "netE", "generator": "netG", "encoder": "netI"}
"""Names of the networks: in this package, and in the authors' code."""

_LAYERS = {"norm1": "bn_1", "norm2": "bn_2", "shortcut": "sc", "mean": "conv51", "log_var": "conv52"}
_WITHOUT_EFFECT = re.compile(
    r"block\d+\.(conv1|conv2|sc)\.bias"  # batch normalization removes the biases of the generator's blocks
    r"|.*\.(running_mean|running_var|num_batches_tracked)"  # the generator always uses the statistics of its batch
)


def parameters(net: str, like: Any, tensors: Tensors) -> Any:
    """Convert the tensors of one network to a tree like its parameters.

    The tensors can be parameters, gradients, or Adam's moments.

    Args:
      net: "energy", "generator" or "encoder".
      like: the network's parameters or their shapes.
      tensors: tensors by the authors' names, as in a state_dict. They must fit (see `problems`).

    Returns:
      A tree of arrays with the structure of `like`.
    """
    flat = flatten_dict(like)
    return unflatten_dict({path: convert(tensors[name]) for path, (name, convert) in _names(net, flat).items()})


def vectors(like: Any, tensors: Tensors) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Convert the singular vectors that spectral norm has estimated for the energy.

    Args:
      like: the energy's parameters or their shapes.
      tensors: tensors by the authors' names, including weight_u and weight_v of each layer.

    Returns:
      A dict from the path of each kernel to its vectors (u, v), as in `models.spectral_norm`.
    """
    pairs, flat = {}, flatten_dict(like)
    for path, (name, _) in _names("energy", flat).items():
        stem = name.removesuffix("_orig")
        *size, num_in, _ = flat[path].shape
        v = tensors[f"{stem}_v"].reshape(num_in, *(size or (1, 1))).transpose(1, 2, 0).ravel()
        pairs["/".join(path)] = (tensors[f"{stem}_u"], v)
    return pairs


def problems(net: str, like: Any, tensors: Tensors) -> list[str]:
    """Compare tensors with the parameters of a network.

    Args:
      net: "energy", "generator" or "encoder".
      like: the network's parameters or their shapes.
      tensors: tensors by the authors' names, as in a state_dict.

    Returns:
      One line of text for each tensor that is missing, unexpected, of the wrong shape, or not finite.
    """
    flat = flatten_dict(like)
    expected = {}
    for path, (name, _) in _names(net, flat).items():
        shape = flat[path].shape
        expected[name] = (*shape[:-3:-1], *shape[:-2]) if len(shape) == 4 else shape[::-1]
        if name.endswith("_orig"):
            stem = name.removesuffix("_orig")
            expected |= {f"{stem}_u": shape[-1:], f"{stem}_v": (int(np.prod(shape[:-1])),)}
    lines = []
    for name in sorted(expected.keys() | tensors.keys()):
        label = f"{NAMES[net]}.{name}"
        if name not in tensors:
            lines.append(f"{label}: found none, expected {expected[name]}")
        elif name not in expected:
            if not (net == "generator" and _WITHOUT_EFFECT.fullmatch(name)):
                lines.append(f"{label}: found {np.shape(tensors[name])}, expected no such tensor")
        elif np.shape(tensors[name]) != expected[name]:
            lines.append(f"{label}: found {np.shape(tensors[name])}, expected {expected[name]}")
        elif not np.isfinite(tensors[name]).all():
            lines.append(f"{label}: found NaN or infinity, expected finite numbers")
    return lines


def is_parameter(name: str) -> bool:
    """Return whether a tensor of a state_dict is a trained parameter and not a buffer.

    Args:
      name: the name of the tensor in the authors' code.
    """
    return not name.endswith(("weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked"))


def _names(net: str, flat: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], tuple[str, Callable]]:
    """Return the authors' name and the conversion of the memory layout, by the path of the parameter."""
    names = {}
    num_blocks = len({path[0] for path in flat if path[0].startswith("block")})
    last = num_blocks + (2 if net == "generator" else 1)
    for path in flat:
        *layers, kind = path
        if net == "encoder" and layers[0].startswith("conv"):
            layers = ["main", str(2 * int(layers[0].removeprefix("conv")))]
        elif layers == ["linear"]:
            layers = ["lin_1" if net == "generator" else f"lin_{last}"]
        elif layers in (["norm"], ["conv"]):
            layers = [f"bn_{last}" if layers == ["norm"] else f"conv{last}"]
        elif layers[0].startswith("block"):
            block = int(layers[0].removeprefix("block")) + 1
            layers = [f"block{block}" if block > 1 else "conv_1", *layers[1:]]
        name = ".".join(_LAYERS.get(layer, layer) for layer in layers)
        suffix = "bias" if kind == "bias" else "weight_orig" if net == "energy" else "weight"
        names[path] = (f"{name}.{suffix}", _layout(net, path, flat[path].ndim))
    return names


def _layout(net: str, path: tuple[str, ...], num_axes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that converts an array of a parameter from the authors' memory layout to ours."""
    if net == "generator" and path[0] == "linear":  # the outputs are the channels and pixels of a 4 x 4 image
        return lambda w: np.moveaxis(w.reshape(-1, 4, 4, *w.shape[1:]), 0, 2).reshape(-1, *w.shape[1:]).T
    if num_axes == 4:
        return lambda w: w.transpose(2, 3, 1, 0)
    return lambda w: w.T
