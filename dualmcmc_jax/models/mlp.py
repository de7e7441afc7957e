"""Multilayer perceptrons for small images and vectors."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dualmcmc_jax.models.layers import linear


class MLP(nn.Module):
    """x [B, ...] -> [B, features]: hidden layers of widths, SiLU after each, then a linear layer."""

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
    """z [B, d] -> x [B, *shape]; images end in a tanh, vectors do not."""

    widths: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, z):
        x = MLP(self.widths, math.prod(self.shape), self.dtype, name="mlp")(z).reshape(-1, *self.shape)
        return jnp.tanh(x) if len(self.shape) == 3 else x


class Energy(nn.Module):
    """x [B, ...] -> energy [B]."""

    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x):
        return MLP(self.widths, 1, self.dtype, name="mlp")(x)[:, 0]


class Encoder(nn.Module):
    """x [B, ...] -> mean [B, d], log_var [B, d] of q_phi(z | x)."""

    widths: tuple[int, ...]
    latent_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = MLP(self.widths, 2 * self.latent_dim, self.dtype, name="mlp")(x)
        return y[:, : self.latent_dim], y[:, self.latent_dim :]
