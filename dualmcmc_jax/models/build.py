"""Networks from a config: the one place that looks at their kind."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from dualmcmc_jax.models import mlp, quadratic, resnet

_ROUNDED = re.compile(r"(conv\d*|shortcut|hidden\d+)$").match
"""Names of the layers whose parameters bind rounds; a generator's first, small one rounds its own, others do not."""
SIZES = (8, 16, 32, 64, 128, 256)


class Net(NamedTuple):
    """A network as two pure functions: init(key) -> params and bind(params) -> (input -> output).

    What depends on the parameters alone, folded kernels and lower precision, is computed by bind, so that a chain need
    not do it in every step. Gradients of several calls add up in that precision too: losses call `apply` instead.
    """

    init: Callable[[jax.Array], Any]
    bind: Callable[[Any], Callable[[jax.Array], Any]]

    def apply(self, params: Any, x: jax.Array) -> Any:
        """bind(params)(x)."""
        return self.bind(params)(x)


class Nets(NamedTuple):
    """energy: x [B, ...] -> [B]; generator: z [B, d] -> x [B, ...]; encoder: x -> (mean [B, d], log_var [B, d])."""

    energy: Net
    generator: Net
    encoder: Net


def build(config, axis_name: str | None = None) -> Nets:
    """The three networks of a config.

    Args:
      config: the whole config; read are data.shape, the three network sections and train.compute_dtype.
      axis_name: the pmapped axis over which batch statistics are shared; None on one device.

    Raises:
      ValueError: a field has a value for which there is no network.
    """
    shape = tuple(config.data.shape)
    latent_dim = config.generator.latent_dim
    dtype = jnp.bfloat16 if config.train.compute_dtype == "bfloat16" else None  # None: that of parameters and inputs
    for name in Nets._fields:
        _check(config[name], name, shape)

    widths = {name: tuple(config[name].widths) for name in Nets._fields}
    if config.energy.kind == "mlp":
        energy = mlp.Energy(widths["energy"], dtype)
    elif config.energy.kind == "quadratic":
        energy = quadratic.Energy(dtype)
    else:
        energy = resnet.Energy(widths["energy"], config.energy.num_pools, dtype)
    if config.generator.kind == "mlp":
        generator = mlp.Generator(widths["generator"], shape, dtype)
    else:
        generator = resnet.Generator(widths["generator"], shape[-1], config.generator.norm, axis_name, dtype)
    encoder = (mlp if config.encoder.kind == "mlp" else resnet).Encoder(widths["encoder"], latent_dim, dtype)
    return Nets(
        energy=_bind(energy, shape),
        generator=_bind(generator, (latent_dim,)),
        encoder=_bind(encoder, shape),
    )


def _check(section, name: str, shape: tuple[int, ...]) -> None:
    widths = tuple(section.widths)
    if section.kind == "quadratic":
        if widths:
            raise ValueError(f"{name}.widths: found {widths}, expected () for a quadratic energy")
        return
    may_be_linear = section.kind == "mlp" and name != "energy"
    if not (widths or may_be_linear) or not all(isinstance(w, int) and w > 0 for w in widths):
        raise ValueError(f"{name}.widths: found {widths}, expected positive integers")
    if section.kind == "mlp":
        return
    if len(shape) != 3 or shape[0] != shape[1] or shape[0] not in SIZES or shape[2] not in (1, 3):
        raise ValueError(f"data.shape: found {shape}, expected (S, S, 1 or 3) with S in {SIZES} for a resnet {name}")
    num_halvings = SIZES.index(shape[0]) + 1  # from S to 4 pixels
    if name == "generator" and len(widths) != num_halvings + 1:
        raise ValueError(
            f"generator.widths: found {len(widths)} levels, expected {num_halvings + 1} at {shape[0]} pixels"
        )
    if name == "encoder" and len(widths) < num_halvings:
        raise ValueError(f"encoder.widths: found {len(widths)} levels, expected {num_halvings} or more")
    if name == "energy" and not 0 <= section.num_pools <= min(len(widths), num_halvings + 2):
        limit = min(len(widths), num_halvings + 2)
        raise ValueError(f"energy.num_pools: found {section.num_pools}, expected 0 to {limit}")


def _bind(module: nn.Module, input_shape: tuple[int, ...]) -> Net:
    @jax.jit
    def init(key):
        return module.init(key, jnp.zeros((1, *input_shape)))["params"]

    def bind(params):
        if hasattr(module, "prepare"):
            params = module.prepare(params)
        if module.dtype:
            rounded = lambda path, p: p.astype(module.dtype) if _ROUNDED(path[-2]) else p
            params = unflatten_dict({path: rounded(path, p) for path, p in flatten_dict(params).items()})
        return lambda x: module.apply({"params": params}, x)

    return Net(init, bind)
