"""Multilayer perceptrons (MLPs) for small images and vectors."""

import itertools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dualmcmc_jax.models.layers import check_widths, linear


def energy(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the MLP energy of a config.

    Args:
      config: the full config (uses energy.widths).
      dtype: dtype of the hidden layers. None: the dtype of parameters and inputs.
      axis_name: not used.
    """
    return Energy(_widths(config, "energy"), dtype)


def generator(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the MLP generator of a config.

    Args:
      config: the full config (uses generator.widths and data.shape). Without widths, the MLP is a linear layer.
      dtype: dtype of the hidden layers. None: the dtype of parameters and inputs.
      axis_name: not used.
    """
    return Generator(_widths(config, "generator", may_be_linear=True), tuple(config.data.shape), dtype)


def encoder(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the MLP inference model of a config.

    Args:
      config: the full config (uses encoder.widths and generator.latent_dim). Without widths, the MLP is a linear layer.
      dtype: dtype of the hidden layers. None: the dtype of parameters and inputs.
      axis_name: not used.
    """
    return Encoder(_widths(config, "encoder", may_be_linear=True), config.generator.latent_dim, dtype)


def _widths(config, name: str, *, may_be_linear: bool = False) -> tuple[int, ...]:
    widths = tuple(config[name].widths)
    check_widths(name, widths, may_be_empty=may_be_linear)
    return widths


def multiply_adds(*widths: int) -> int:
    """Return the multiply-adds of consecutive linear layers for one example.

    Args:
      *widths: the number of inputs of the first layer, then the number of outputs of each layer.
    """
    return sum(a * b for a, b in itertools.pairwise(widths))


class MLP(nn.Module):
    """A multilayer perceptron, x [B, ...] -> [B, features]: hidden layers with SiLU, then a linear layer."""

    widths: tuple[int, ...]
    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.widths):
            y = nn.silu(linear(y, width, kernel_init=nn.initializers.he_normal(), dtype=self.dtype, name=f"hidden{i}"))
        return linear(y.astype(x.dtype), self.features, name="out")


class Generator(nn.Module):
    """An MLP generator, z [B, d] -> g(z) [B, *shape]. A tanh is applied to images, but not to vectors."""

    widths: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, z):
        x = MLP(self.widths, math.prod(self.shape), self.dtype, name="mlp")(z).reshape(-1, *self.shape)
        return jnp.tanh(x) if len(self.shape) == 3 else x

    @property
    def is_affine(self):
        return not self.widths and len(self.shape) != 3

    def textbook_multiply_adds(self, input_shape):
        return multiply_adds(*input_shape, *self.widths, math.prod(self.shape))


class Energy(nn.Module):
    """An MLP energy, x [B, ...] -> [B]."""

    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x):
        return MLP(self.widths, 1, self.dtype, name="mlp")(x)[:, 0]

    def textbook_multiply_adds(self, input_shape):
        return multiply_adds(math.prod(input_shape), *self.widths, 1)


class Encoder(nn.Module):
    """An MLP inference model, x [B, ...] -> mean [B, d] and log variance [B, d] of q_phi(z | x)."""

    widths: tuple[int, ...]
    latent_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = MLP(self.widths, 2 * self.latent_dim, self.dtype, name="mlp")(x)
        return y[:, : self.latent_dim], y[:, self.latent_dim :]

    @property
    def is_affine(self):
        return not self.widths

    def textbook_multiply_adds(self, input_shape):
        return multiply_adds(math.prod(input_shape), *self.widths, 2 * self.latent_dim)
