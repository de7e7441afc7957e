"""Networks from a config: the one place that looks at their kind."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from dualmcmc_jax.models import mlp, quadratic, resnet

NETWORKS: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "energy": {"mlp": mlp.energy, "resnet": resnet.energy, "quadratic": quadratic.energy},
    "generator": {"mlp": mlp.generator, "resnet": resnet.generator},
    "encoder": {"mlp": mlp.encoder, "resnet": resnet.encoder},
}
"""The function that makes each kind of network: (config, dtype=..., axis_name=...) -> module.

A new network is a module of this folder and a row. The function raises ValueError for a field of its section that has a
value for which there is no network. The flax module that it returns needs the field `dtype` and the method
`textbook_multiply_adds(input_shape)`. Attributes that `Net` describes say what other parts of the program must know. An
optional method `prepare(params)` computes what depends on the parameters alone, once per `bind`.
"""

_ROUNDED = re.compile(r"(conv\d*|shortcut|hidden\d+)$").match
"""Matches names of the layers whose parameters `bind` rounds. A generator's first layer is small and rounds its own."""


class Net(NamedTuple):
    """A network as two pure functions: init(key) -> params and bind(params) -> (input -> output).

    Whatever depends on the parameters alone, such as folded kernels and lower precision, is computed by `bind`, so that
    a chain does not compute it in every step. Gradients of several calls would add up in that precision too, so losses
    call `apply` instead.

    Attributes:
      init: key -> parameters.
      bind: parameters -> (input -> output).
      unroll_on_cpu: whether a loop over this network should be unrolled on a CPU, as loops of convolutions should.
      is_gaussian: whether an energy is that of a Gaussian.
      is_affine: whether a generator or encoder is an affine function.
      has_torch_names: whether `interop.torch_names` knows this network among those of the authors' code.
      textbook_multiply_adds: multiply-adds of one forward pass of one example, each layer as it is written down.
    """

    init: Callable[[jax.Array], Any]
    bind: Callable[[Any], Callable[[jax.Array], Any]]
    unroll_on_cpu: bool = False
    is_gaussian: bool = False
    is_affine: bool = False
    has_torch_names: bool = False
    textbook_multiply_adds: int = 0

    def apply(self, params: Any, x: jax.Array) -> Any:
        """Return bind(params)(x)."""
        return self.bind(params)(x)


class Nets(NamedTuple):
    """energy: x [B, ...] -> [B]; generator: z [B, d] -> x [B, ...]; encoder: x -> (mean [B, d], log_var [B, d])."""

    energy: Net
    generator: Net
    encoder: Net


class Params(NamedTuple):
    """One value per network: parameters, gradients, optimizers, or optimizer states."""

    energy: Any
    generator: Any
    encoder: Any


def build(config, axis_name: str | None = None) -> Nets:
    """Build the three networks of a config.

    Args:
      config: the whole config; read are data.shape, the three network sections and train.compute_dtype.
      axis_name: the pmapped axis over which batch statistics are shared; None on one device.

    Raises:
      ValueError: a field has a value for which there is no network.
    """
    shape = tuple(config.data.shape)
    input_shapes = {"energy": shape, "generator": (config.generator.latent_dim,), "encoder": shape}
    dtype = jnp.bfloat16 if config.train.compute_dtype == "bfloat16" else None  # None: that of parameters and inputs

    def net(name):
        kind = config[name].kind
        if kind not in NETWORKS[name]:
            raise ValueError(f"{name}.kind: found {kind!r}, expected one of {', '.join(map(repr, NETWORKS[name]))}")
        return _net(NETWORKS[name][kind](config, dtype=dtype, axis_name=axis_name), input_shapes[name])

    return Nets(**{name: net(name) for name in Nets._fields})


def _net(module: nn.Module, input_shape: tuple[int, ...]) -> Net:
    @jax.jit
    def init(key):
        return module.init(key, jnp.zeros((1, *input_shape)))["params"]

    def bind(params):
        if hasattr(module, "prepare"):
            params = module.prepare(params)
        if module.dtype:
            rounded = lambda path, p: p.astype(module.dtype) if len(path) > 1 and _ROUNDED(path[-2]) else p
            params = unflatten_dict({path: rounded(path, p) for path, p in flatten_dict(params).items()})
        return lambda x: module.apply({"params": params}, x)

    attributes = ("unroll_on_cpu", "is_gaussian", "is_affine", "has_torch_names")
    known = {name: getattr(module, name) for name in attributes if hasattr(module, name)}
    return Net(init, bind, textbook_multiply_adds=module.textbook_multiply_adds(input_shape), **known)
