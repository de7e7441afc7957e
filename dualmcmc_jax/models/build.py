"""Which networks does a config describe? The table of network kinds, and the functions that build them."""

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
"""For each network and each value of its config field `kind`, the function that makes the network's flax module.

A new network is one module of this folder and one row of this table. The function is called as
`function(config, dtype=..., axis_name=...)`. It raises ValueError if a field of its config section has a value that the
network does not support. The flax module that it returns must have a field `dtype` and a method
`textbook_multiply_adds(input_shape)`. It may define the attributes `unroll_on_cpu`, `is_gaussian`, `is_affine` and
`has_torch_names`, which `Net` describes. It may also define a method `prepare(params)`, which `Net.bind` calls once to
compute what depends only on the parameters.
"""

_ROUNDED = re.compile(r"(conv\d*|shortcut|hidden\d+)$").match
"""Matches the names of the layers whose parameters `bind` converts to the lower precision.

A generator's first layer is not among them. The layer is small and converts its parameters in every call.
"""


class Net(NamedTuple):
    """A network as two pure functions, init(key) -> params and bind(params) -> (input -> output).

    `bind` computes everything that depends only on the parameters, such as folded kernels and the conversion to lower
    precision. A chain binds its network once and does not repeat this work in every step. Losses call `apply` instead:
    if they called a bound network several times, the gradients of the calls would be added in the lower precision.

    Attributes:
      init: key -> parameters.
      bind: parameters -> (input -> output).
      unroll_on_cpu: whether a loop that calls this network is faster if it is unrolled on a CPU. This is the case for
        convolutional networks.
      is_gaussian: whether this is an energy whose density is a Gaussian.
      is_affine: whether this is a generator or an encoder that is an affine function.
      has_torch_names: whether `interop.torch_names` can convert the parameters of this network from the authors' code.
      textbook_multiply_adds: multiply-adds of a forward pass of one example in a straightforward implementation, in
        which no kernels are folded and no layers are reordered.
    """

    init: Callable[[jax.Array], Any]
    bind: Callable[[Any], Callable[[jax.Array], Any]]
    unroll_on_cpu: bool = False
    is_gaussian: bool = False
    is_affine: bool = False
    has_torch_names: bool = False
    textbook_multiply_adds: int = 0

    def apply(self, params: Any, x: jax.Array) -> Any:
        """Return the output of the network for an input, bind(params)(x).

        Args:
          params: the parameters.
          x: a batch of inputs.
        """
        return self.bind(params)(x)


class Nets(NamedTuple):
    """The three networks.

    Attributes:
      energy: x [B, ...] -> energy [B].
      generator: z [B, d] -> g(z) [B, ...], the mean of p(x | z).
      encoder: x [B, ...] -> mean [B, d] and log variance [B, d] of q(z | x), the inference model.
    """

    energy: Net
    generator: Net
    encoder: Net


class Params(NamedTuple):
    """One value per network, such as parameters, gradients, optimizers, or optimizer states."""

    energy: Any
    generator: Any
    encoder: Any


def build(config, axis_name: str | None = None) -> Nets:
    """Build the three networks of a config.

    Args:
      config: the full config (uses data.shape, the three network sections and train.compute_dtype).
      axis_name: name of the pmapped device axis over which batch normalization computes its statistics. None: each
        device uses the statistics of its own examples.

    Returns:
      The three networks.

    Raises:
      ValueError: a config field has a value that the network does not support.
    """
    shape = tuple(config.data.shape)
    input_shapes = {"energy": shape, "generator": (config.generator.latent_dim,), "encoder": shape}
    dtype = jnp.bfloat16 if config.train.compute_dtype == "bfloat16" else None  # None: dtype of the parameters

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
