"""Which networks does a config describe? The table of network kinds, and the functions that build them."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from dualmcmc_jax import own_code
from dualmcmc_jax.models import conv, mlp, own_network, quadratic, resnet
from dualmcmc_jax.models.confinement import confined
from dualmcmc_jax.spelling import one_of

NETWORKS: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "energy": {"mlp": mlp.energy, "conv": conv.energy, "resnet": resnet.energy, "quadratic": quadratic.energy},
    "generator": {"mlp": mlp.generator, "conv": conv.generator, "resnet": resnet.generator},
    "encoder": {"mlp": mlp.encoder, "conv": conv.encoder, "resnet": resnet.encoder},
}
"""The function that makes the flax module, for each network and each value of the network's config field `kind`.

A new network is one module of this folder and one row of this table. The function is called as
`function(config, dtype=..., axis_name=...)`. It raises ValueError if a field of its config section has a value that the
network does not support. The returned flax module must have a field `dtype` and a method
`textbook_multiply_adds(input_shape)`. The module may define the attributes `unroll_on_cpu`, `is_gaussian`, `is_affine`
and `has_torch_names`, which `Net` describes. The module may also define a method `prepare(params)`, which `Net.bind`
calls once to compute what depends only on the parameters.

A `kind` may also be MODULE:NAME or FILE.py:NAME, a network of the user (`own_network.py`).
"""

_LOW_PRECISION_LAYER = re.compile(r"(conv\d*|shortcut|hidden\d+)$").match
"""Matches the names of the layers whose parameters `bind` converts to the lower precision.

The first layer of a residual generator is not among these layers. It is small and converts its parameters in every
call.
"""


class Net(NamedTuple):
    """A network as two pure functions, init(key) -> params and bind(params) -> (input -> output).

    `bind` computes everything that depends only on the parameters, such as folded kernels and the conversion to lower
    precision. A chain binds its network once and does not repeat this work in every step. Losses call `apply` instead,
    because the gradients of several calls of one bound network would be added in the lower precision.

    Attributes:
      init: key -> parameters.
      bind: parameters -> (input -> output).
      unroll_on_cpu: whether a loop that calls this network is faster if it is unrolled on a CPU. This is the case for
        convolutional networks.
      is_gaussian: whether this is an energy whose density is a Gaussian.
      is_affine: whether this is a generator or an encoder that is an affine function.
      has_torch_names: whether `interop.torch_names` can convert the parameters of this network from the authors' code.
      textbook_multiply_adds: number of multiply-adds in the forward pass of one example, for a straightforward
        implementation that folds no kernels and reorders no layers.
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
      ValueError: config fields have values that the networks do not support. The message names all of them, and flags
        that would fit.
    """
    shape = tuple(config.data.shape)
    input_shapes = {"energy": shape, "generator": (config.generator.latent_dim,), "encoder": shape}
    dtype = jnp.bfloat16 if config.train.compute_dtype == "bfloat16" else None  # None: dtype of the parameters

    def net(name):
        kind = config[name].kind
        if kind not in NETWORKS[name] and own_code.is_name(kind):
            return _own_net(name, config, input_shape=input_shapes[name], dtype=dtype, axis_name=axis_name)
        if kind not in NETWORKS[name]:
            raise ValueError(f"{name}.kind: found {kind!r}, expected {one_of(kind, NETWORKS[name])}")
        return _net(NETWORKS[name][kind](config, dtype=dtype, axis_name=axis_name), input_shapes[name])

    nets, problems = {}, []
    for name in Nets._fields:
        try:
            nets[name] = net(name)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(_message(problems, config))
    if config.energy.confinement:
        nets["energy"] = nets["energy"]._replace(bind=confined(nets["energy"].bind, config.energy.confinement))
    return Nets(**nets)


def _message(problems: list[str], config) -> str:
    """Return the message for networks that cannot be built. If their depths are wrong, it names flags that fit."""
    if problems[0].startswith("data.shape: "):  # the other networks have the same problem
        return problems[0]
    flags = "".join(f' --config.{name}="{value}"' for name, value in resnet.fitting(config).items())
    return "; ".join(problems) + (f"; these would fit:{flags.replace(', ', ',')}" if flags else "")


def _net(module: nn.Module, input_shape: tuple[int, ...]) -> Net:
    @jax.jit
    def init(key):
        return module.init(key, jnp.zeros((1, *input_shape)))["params"]

    def bind(params):
        if hasattr(module, "prepare"):
            params = module.prepare(params)
        if module.dtype:
            is_low = lambda path: len(path) > 1 and _LOW_PRECISION_LAYER(path[-2])
            flat = {path: p.astype(module.dtype) if is_low(path) else p for path, p in flatten_dict(params).items()}
            params = unflatten_dict(flat)
        return lambda x: module.apply({"params": params}, x)

    names = ("unroll_on_cpu", "is_gaussian", "is_affine", "has_torch_names")
    attributes = {name: getattr(module, name) for name in names if hasattr(module, name)}
    return Net(init, bind, textbook_multiply_adds=module.textbook_multiply_adds(input_shape), **attributes)


def _own_net(name: str, config, **settings) -> Net:
    own = own_network.functions(name, config, **settings)
    bind = lambda params: lambda x: own.apply(params, x)
    return Net(own.init, bind, unroll_on_cpu=getattr(own.network, "unroll_on_cpu", False))
