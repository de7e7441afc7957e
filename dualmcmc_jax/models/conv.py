"""Small networks of strided convolutions, for images such as MNIST. They are fast enough for training on a CPU.

The energy and the inference model halve the images once per width, by a 4 x 4 convolution of stride 2. The generator
doubles them once per width, by a 3 x 3 convolution whose channels become blocks of 2 x 2 pixels (Shi et al., 2016).
"""

import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dualmcmc_jax.models.layers import check_widths, conv, linear


def energy(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the convolutional energy of a config.

    Args:
      config: the full config (uses data.shape and energy.widths).
      dtype: dtype of the convolutions. None: the dtype of parameters and inputs.
      axis_name: not used.
    """
    return Energy(_widths(config, "energy"), dtype)


def generator(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the convolutional generator of a config.

    Args:
      config: the full config (uses data.shape and generator.widths).
      dtype: dtype of the convolutions. None: the dtype of parameters and inputs.
      axis_name: not used.
    """
    widths, shape = _widths(config, "generator"), tuple(config.data.shape)
    most = min((size & -size).bit_length() - 1 for size in shape[:2])  # how often both sizes can be halved
    if len(widths) > most:
        found = f"{len(widths)} widths" if len(widths) > 1 else "1 width"
        expected = f"at most {most}" if most else "another kind of generator"
        expected += f", because {shape[0]} x {shape[1]} pixels cannot be halved more often"
        raise ValueError(f"generator.widths: found {found}, expected {expected}")
    return Generator(widths, shape, dtype)


def encoder(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the convolutional inference model of a config.

    Args:
      config: the full config (uses data.shape, encoder.widths and generator.latent_dim).
      dtype: dtype of the convolutions. None: the dtype of parameters and inputs.
      axis_name: not used.
    """
    return Encoder(_widths(config, "encoder"), config.generator.latent_dim, dtype)


def _widths(config, name: str) -> tuple[int, ...]:
    """Return the widths of a network. Raise ValueError if they do not fit the shape of the images."""
    widths, shape = tuple(config[name].widths), tuple(config.data.shape)
    check_widths(name, widths)
    if len(shape) != 3:
        raise ValueError(f"data.shape: found {shape}, expected (H, W, C) for a convolutional {name}")
    return widths


class Down(nn.Module):
    """x [B, H, W, C] -> [B, d]: a 4 x 4 convolution of stride 2 and a SiLU per width, flattened.

    Before each convolution, an odd height or width is padded to an even one by zeros.
    """

    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = x
        for i, width in enumerate(self.widths):
            # XLA's gradient of a convolution of stride 2 is slow on a CPU if the height or width is odd.
            y = jnp.pad(y, ((0, 0), (0, y.shape[1] % 2), (0, y.shape[2] % 2), (0, 0)))
            y = nn.silu(conv(y, width, 4, stride=2, padding=1, use_bias=True, dtype=self.dtype, name=f"conv{i}"))
        return y.reshape(len(y), -1).astype(x.dtype)


class Energy(nn.Module):
    """A convolutional energy, x [B, H, W, C] -> [B]."""

    widths: tuple[int, ...]
    dtype: Any

    unroll_on_cpu = True

    @nn.compact
    def __call__(self, x):
        return linear(Down(self.widths, self.dtype, name="down")(x), 1, name="out")[:, 0]

    def textbook_multiply_adds(self, input_shape):
        return down_multiply_adds(self.widths, input_shape, features=1)


class Encoder(nn.Module):
    """A convolutional inference model, x [B, H, W, C] -> mean [B, d] and log variance [B, d] of q_phi(z | x)."""

    widths: tuple[int, ...]
    latent_dim: int
    dtype: Any

    unroll_on_cpu = True

    @nn.compact
    def __call__(self, x):
        y = linear(Down(self.widths, self.dtype, name="down")(x), 2 * self.latent_dim, name="out")
        return y[:, : self.latent_dim], y[:, self.latent_dim :]

    def textbook_multiply_adds(self, input_shape):
        return down_multiply_adds(self.widths, input_shape, features=2 * self.latent_dim)


class Generator(nn.Module):
    """A convolutional generator, z [B, d] -> g(z) [B, H, W, C] in [-1, 1].

    A linear layer makes small images, with the first width as the number of channels. Then a 3 x 3 convolution per
    width doubles height and width.
    """

    widths: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any

    unroll_on_cpu = True

    @nn.compact
    def __call__(self, z):
        height, width, channels = self.shape
        small = (height >> len(self.widths), width >> len(self.widths), self.widths[0])
        y = linear(z, math.prod(small), name="hidden").reshape(-1, *small)
        for i, features in enumerate((*self.widths[1:], channels)):
            y = conv(nn.silu(y), 4 * features, 3, padding=1, use_bias=True, dtype=self.dtype, name=f"conv{i}")
            y = depth_to_space(y)
        return jnp.tanh(y.astype(z.dtype))

    def textbook_multiply_adds(self, input_shape):
        height, width, channels = self.shape
        pixels = (height >> len(self.widths)) * (width >> len(self.widths))
        total = input_shape[0] * pixels * self.widths[0]
        for before, features in itertools.pairwise((*self.widths, channels)):
            total += pixels * 9 * before * 4 * features
            pixels *= 4
        return total


def depth_to_space(x: jax.Array) -> jax.Array:
    """Turn the channels of each pixel into a block of 2 x 2 pixels, [B, H, W, 4 C] -> [B, 2 H, 2 W, C]."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w, 2, 2, c // 4).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, c // 4)


def down_multiply_adds(widths: tuple[int, ...], input_shape: tuple[int, ...], *, features: int) -> int:
    """Return the multiply-adds of `Down` and a linear layer for one example.

    Args:
      widths: the widths of `Down`.
      input_shape: (H, W, C) of one example.
      features: number of outputs of the linear layer.
    """
    height, width, channels = input_shape
    total = 0
    for out in widths:
        height, width = (height + 1) // 2, (width + 1) // 2
        total += height * width * 16 * channels * out
        channels = out
    return total + height * width * channels * features
