"""Networks of the user: a flax module, or an object with `init` and `apply`, as functions of named parameters."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from ml_collections import FrozenConfigDict

from dualmcmc_jax import own_code

BATCH = 8
"""Number of examples in the check of the shapes."""


class Functions(NamedTuple):
    """A network of the user.

    Attributes:
      init: key -> parameters, a dict of arrays or of such dicts.
      apply: (parameters, input [B, ...]) -> output, in the dtype of the input.
      network: the object with the user's own `init` and `apply`.
    """

    init: Callable[[jax.Array], dict[str, Any]]
    apply: Callable[[dict[str, Any], jax.Array], Any]
    network: Any


def functions(name: str, config, *, input_shape: tuple[int, ...], dtype, axis_name: str | None) -> Functions:
    """Create the network that a config names by MODULE:NAME or FILE.py:NAME, and check its shapes. Nothing is computed.

    Args:
      name: "energy", "generator" or "encoder".
      config: the full config.
      input_shape: shape of one input.
      dtype: dtype of the hidden layers. None: the dtype of parameters and inputs.
      axis_name: name of the device axis; see `models.build`.

    Raises:
      ValueError: the code cannot be imported, its functions fail, or their results have other shapes than expected.
    """
    field = f"{name}.kind"
    network = _instance(field, own_code.find(field, config[name].kind, argument=name), name, config, dtype, axis_name)
    if not (callable(getattr(network, "init", None)) and callable(getattr(network, "apply", None))):
        expected = "a flax.linen module, or an object with init(key, x) and apply(params, x)"
        raise ValueError(f"{field}: found {type(network).__name__} in {config[name].kind!r}, expected {expected}")
    is_flax = isinstance(network, nn.Module)
    key, x = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((BATCH, *input_shape), jnp.float32)
    variables = _call(field, lambda: jax.eval_shape(network.init, key, x), f"init(key, x) for x of shape {x.shape}")
    collections = variables if isinstance(variables, Mapping) and (is_flax or "params" in variables) else {}
    if others := [other for other in collections if other != "params" and jax.tree.leaves(variables[other])]:
        expected = "only params: a network is a function of its parameters and its input (docs/extend.md)"
        raise ValueError(f"{field}: found a network with the collection {others[0]}, expected {expected}")
    names, structure = _names(variables.get("params", {}) if is_flax else variables)
    leaves = jax.tree.leaves(variables)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        found = ", ".join(sorted({leaf.dtype.name for leaf in leaves})) or "none"
        raise ValueError(f"{field}: found parameters of {found}, expected parameters of floating-point numbers")

    @jax.jit
    def init(key):
        variables = network.init(key, jnp.zeros((1, *input_shape)))
        tree = variables["params"] if is_flax else variables
        return dict(zip(names, jax.tree.leaves(tree), strict=True)) if names else tree

    def apply(params, x):
        tree = jax.tree.unflatten(structure, [params[name] for name in names]) if names else params
        y = network.apply({"params": tree} if is_flax else tree, x)
        return jax.tree.map(lambda y: y.astype(x.dtype), tuple(y) if isinstance(y, list) else y)

    params = jax.eval_shape(init, key)
    y = _call(field, lambda: jax.eval_shape(apply, params, x), f"apply(params, x) for x of shape {x.shape}")
    _check_output(name, y, config)
    kernels = [path for path in flatten_dict(params) if path[-1].endswith("kernel")]
    if name == "energy" and config.energy.spectral_norm and not kernels:
        expected = f"False, because {config.energy.kind!r} has no parameter named kernel"
        raise ValueError(f"energy.spectral_norm: found True, expected {expected}")
    return Functions(init, apply, network)


def _instance(field: str, thing: Any, name: str, config, dtype, axis_name: str | None) -> Any:
    """Return an object, or what a class or function returns for those of the offered arguments that it takes."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return thing
    offered = {
        "config": config
        if isinstance(config, FrozenConfigDict)
        else FrozenConfigDict(config.copy_and_resolve_references()),
        "shape": tuple(config.data.shape),
        "latent_dim": config.generator.latent_dim,
        "widths": tuple(config[name].widths),
        "dtype": dtype,
        "axis_name": axis_name,
    }
    parameters = inspect.signature(thing).parameters
    needed = [name for name, p in parameters.items() if p.default is p.empty and p.kind not in (2, 4)]  # not *, **
    if unknown := [name for name in needed if name not in offered]:
        expected = f"only {', '.join(offered)}, and arguments with default values"
        raise ValueError(f"{field}: found {thing.__name__} with the argument {unknown[0]}, expected {expected}")
    taken = {key: x for key, x in offered.items() if key in needed or (key in parameters and x is not None)}
    return _call(field, lambda: thing(**taken), f"{thing.__name__}({', '.join(taken)})")


def _call(field: str, function: Callable[[], Any], call: str) -> Any:
    """Return function(). Raise ValueError with one line if code of the user raises an error."""
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{field}: found {own_code.problem(error)}, expected no error in {call}") from error


def _names(tree: Any) -> tuple[list[str], Any]:
    """Return a name for each leaf of a tree, and its structure; no names if the tree is a dict that can be stored."""

    def is_plain(tree):
        if not isinstance(tree, dict) or not tree:
            return False
        return all(
            isinstance(key, str) and not re.search(r"[/.]", key) and (hasattr(value, "shape") or is_plain(value))
            for key, value in tree.items()
        )

    if is_plain(tree):
        return [], None
    names = []
    for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = re.sub(r"\W+", "_", jax.tree_util.keystr(path)).strip("_") or "value"
        names.append(f"{name}_{len(names)}" if name in names else name)
    return names, jax.tree.structure(tree)


def _check_output(name: str, y: Any, config) -> None:
    """Raise ValueError unless the output for BATCH inputs has the shapes of an energy, a generator or an encoder."""
    latent = (BATCH, config.generator.latent_dim)
    shapes = {"energy": (BATCH,), "generator": (BATCH, *config.data.shape), "encoder": (latent, latent)}
    if isinstance(y, tuple):
        found = tuple(getattr(part, "shape", type(part).__name__) for part in y)
        text = f"outputs of shapes {', '.join(map(str, found))}"
    else:
        found = getattr(y, "shape", None)
        text = f"output of shape {found}" if hasattr(y, "shape") else f"output of type {type(y).__name__}"
    if found != shapes[name]:
        expected = f"{latent} and {latent}, mean and log variance" if name == "encoder" else shapes[name]
        raise ValueError(f"{name}: found {text}, expected {expected}")
