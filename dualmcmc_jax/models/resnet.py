"""The authors' residual networks for CIFAR-10 and CelebA-64, extended to square images of 8 to 256 pixels.

The networks compute the same functions as the authors' PyTorch code, at lower cost. The layers differ as follows:

- The 1 x 1 convolution of a shortcut is applied before upsampling in the generator, and after pooling in the energy.
  A 1 x 1 convolution commutes with upsampling and pooling, so the result is the same, at a quarter of the pixels.
- In the energy, average pooling is folded into the convolution before it (`layers.fold_avg_pool`).
- The convolutions in the generator's blocks have no bias. A bias would add a constant to each channel, and the next
  batch normalization would subtract this constant again.
- Batch normalization keeps no running averages. The authors' code keeps running averages, but it always normalizes by
  the statistics of the current batch.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dualmcmc_jax.models.layers import (
    ACTIVATIONS,
    NORMS,
    avg_pool,
    check_widths,
    conv,
    fold_avg_pool,
    linear,
    norm,
    upsample,
)
from dualmcmc_jax.spelling import one_of

SIZES = (8, 16, 32, 64, 128, 256)
"""The image sizes, in pixels, that these networks support."""


def energy(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the residual energy of a config.

    Args:
      config: the full config (uses data.shape, energy.widths, energy.num_pools and energy.activation).
      dtype: dtype of the convolutions. None: the dtype of parameters and inputs.
      axis_name: not used.
    """
    widths, num_halvings = _widths(config, "energy"), _num_halvings(config)
    num_pools, limit = config.energy.num_pools, min(len(widths), num_halvings + 2)
    if not 0 <= num_pools <= limit:
        or_widths = ""
        if len(widths) < num_pools <= num_halvings + 2:
            longer = str(_resized(widths, num_pools)).replace(" ", "")
            or_widths = f' for {len(widths)} energy.widths, or {num_pools} of them: --config.energy.widths="{longer}"'
        raise ValueError(f"energy.num_pools: found {num_pools}, expected 0 to {limit}{or_widths}")
    activation = config.energy.activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"energy.activation: found {activation!r}, expected {one_of(activation, ACTIVATIONS)}")
    return Energy(widths, num_pools, activation, dtype)


def generator(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the residual generator of a config.

    Args:
      config: the full config (uses data.shape, generator.widths and generator.norm).
      dtype: dtype of the convolutions. None: the dtype of parameters and inputs.
      axis_name: name of the device axis over which batch normalization computes its statistics, or None.
    """
    widths, num_levels, kind = _widths(config, "generator"), _num_halvings(config) + 1, config.generator.norm
    size, channels = config.data.shape[0], config.data.shape[-1]
    if len(widths) != num_levels:
        raise ValueError(f"generator.widths: found {len(widths)} levels, expected {num_levels} at {size} pixels")
    if kind not in NORMS:
        raise ValueError(f"generator.norm: found {kind!r}, expected {one_of(kind, NORMS)}")
    return Generator(widths, channels, kind, axis_name, dtype)


def encoder(config, *, dtype, axis_name=None) -> nn.Module:
    """Build the convolutional inference model of a config.

    Args:
      config: the full config (uses data.shape, encoder.widths and generator.latent_dim).
      dtype: dtype of the convolutions. None: the dtype of parameters and inputs.
      axis_name: not used.
    """
    widths, num_halvings = _widths(config, "encoder"), _num_halvings(config)
    if len(widths) < num_halvings:
        raise ValueError(f"encoder.widths: found {len(widths)} levels, expected {num_halvings} or more")
    return Encoder(widths, config.generator.latent_dim, dtype)


def fitting(config) -> dict[str, Any]:
    """Return {field: value} of the fields that must change for the residual networks of a config to fit `data.shape`.

    The widths are cut off, or the last of them is repeated. The dict is empty for shapes that these networks do not
    support.

    Args:
      config: the full config.
    """
    if config.data.shape[0] not in SIZES:
        return {}
    n, fields = _num_halvings(config), {}
    if config.generator.kind == "resnet" and len(config.generator.widths) != n + 1:
        fields["generator.widths"] = _resized(config.generator.widths or (64,), n + 1)
    if config.encoder.kind == "resnet" and len(config.encoder.widths) < n:
        fields["encoder.widths"] = _resized(config.encoder.widths or (64,), n)
    if config.energy.kind == "resnet" and config.energy.num_pools > (limit := min(len(config.energy.widths), n + 2)):
        fields["energy.num_pools"] = limit
    return fields


def _resized(widths: tuple[int, ...], num: int) -> tuple[int, ...]:
    return (tuple(widths) + tuple(widths[-1:]) * num)[:num]


def _widths(config, name: str) -> tuple[int, ...]:
    """Return the widths of a network. Raise ValueError if they or the shape of the images are not supported."""
    widths, shape = tuple(config[name].widths), tuple(config.data.shape)
    check_widths(name, widths)
    if len(shape) != 3 or shape[0] != shape[1] or shape[0] not in SIZES or shape[2] not in (1, 3):
        raise ValueError(f"data.shape: found {shape}, expected (S, S, 1 or 3) with S in {SIZES} for a resnet {name}")
    return widths


def _num_halvings(config) -> int:
    """Return how many times the images must be halved to a size of 4 pixels."""
    return SIZES.index(config.data.shape[0]) + 1


class UpBlock(nn.Module):
    """A residual block that doubles the size of images.

    The main path is norm, ReLU, upsample, conv3x3, norm, ReLU, conv3x3. A shortcut of conv1x1 and upsample is added to
    it. In the authors' code, the shortcut upsamples first, which is the same function at four times the cost. The
    convolutions have no bias, because the next batch normalization would remove its effect.
    """

    width: int
    norm: str
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = upsample(nn.relu(norm(self.norm, x, axis_name=self.axis_name, name="norm1")))
        y = conv(y, self.width, 3, padding=1, dtype=self.dtype, name="conv1")
        y = nn.relu(norm(self.norm, y, axis_name=self.axis_name, name="norm2"))
        y = conv(y, self.width, 3, padding=1, dtype=self.dtype, name="conv2")
        return y + upsample(conv(x, self.width, 1, dtype=self.dtype, name="shortcut"))


class Generator(nn.Module):
    """A residual generator, z [B, d] -> g(z) [B, S, S, channels] in [-1, 1].

    A linear layer makes a 4 x 4 image with widths[0] channels. One UpBlock per further width follows, then norm, ReLU,
    conv3x3 and tanh.
    """

    widths: tuple[int, ...]
    channels: int
    norm: str
    axis_name: str | None
    dtype: Any

    unroll_on_cpu = has_torch_names = True

    @nn.compact
    def __call__(self, z):
        x = linear(z, 16 * self.widths[0], dtype=self.dtype, name="linear").reshape(-1, 4, 4, self.widths[0])
        for i, width in enumerate(self.widths[1:], 1):
            x = UpBlock(width, self.norm, self.axis_name, self.dtype, name=f"block{i}")(x)
        x = nn.relu(norm(self.norm, x, axis_name=self.axis_name, name="norm"))
        x = conv(x, self.channels, 3, padding=1, use_bias=True, dtype=self.dtype, name="conv")
        return jnp.tanh(x.astype(z.dtype))

    def textbook_multiply_adds(self, input_shape):
        size, channels = 4, self.widths[0]
        total = input_shape[0] * 16 * channels
        for width in self.widths[1:]:
            size *= 2
            total += size**2 * (9 * channels * width + 9 * width**2 + channels * width)
            channels = width
        return total + 9 * channels * self.channels * size**2


class DownBlock(nn.Module):
    """A residual block that optionally halves the size of images.

    The main path is activation, conv3x3, activation, conv3x3, and a shortcut is added to it. The activation is ReLU in
    the authors' networks. The first block of a network has no first activation. If `pool` is set, 2 x 2 average pooling
    is applied to the main path and to the shortcut. The shortcut is the identity if neither size nor width changes.
    Otherwise it is a conv1x1, which is applied after pooling.

    In the main path, pooling is folded into the second convolution. The parameter of this convolution is a kernel
    [3, 3, I, O]. `Energy.prepare` replaces it by the folded kernel [4, 4, I, O] before the block is applied.
    """

    width: int
    pool: bool
    first: bool
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x):
        activate = ACTIVATIONS[self.activation]
        y = x if self.first else activate(x)
        y = activate(conv(y, self.width, 3, padding=1, dtype=self.dtype, name="conv1"))
        if self.pool:
            x = avg_pool(x)
            size = 3 if self.is_initializing() else 4  # the kernel has been folded by `Energy.prepare`
            y = conv(y, self.width, size, stride=2, padding=1, dtype=self.dtype, name="conv2")
        else:
            y = conv(y, self.width, 3, padding=1, dtype=self.dtype, name="conv2")
        if self.pool or x.shape[-1] != self.width:
            x = conv(x, self.width, 1, dtype=self.dtype, name="shortcut")
        return x + y


class Energy(nn.Module):
    """A residual energy, x [B, S, S, C] -> [B].

    The network is one DownBlock per width, then the activation, the mean over pixels, and a linear layer. The first
    num_pools blocks halve the size of the image. No layer has a bias.
    """

    widths: tuple[int, ...]
    num_pools: int
    activation: str
    dtype: Any

    unroll_on_cpu = has_torch_names = True

    def prepare(self, params):
        """Return the parameters with pooling folded into the kernels.

        Args:
          params: the parameters that `init` has created.
        """
        fold = lambda block: block | {"conv2": {"kernel": fold_avg_pool(block["conv2"]["kernel"])}}
        pooling = {f"block{i}" for i in range(self.num_pools)}
        return {name: fold(part) if name in pooling else part for name, part in params.items()}

    @nn.compact
    def __call__(self, x):
        y = x
        for i, width in enumerate(self.widths):
            y = DownBlock(width, i < self.num_pools, i == 0, self.activation, self.dtype, name=f"block{i}")(y)
        y = ACTIVATIONS[self.activation](y).astype(x.dtype).mean((1, 2))
        return linear(y, 1, use_bias=False, name="linear")[:, 0]

    def textbook_multiply_adds(self, input_shape):
        size, _, channels = input_shape
        total = 0
        for i, width in enumerate(self.widths):
            pool = i < self.num_pools
            shortcut = channels * width if pool or channels != width else 0
            total += size**2 * (9 * channels * width + 9 * width**2 + shortcut)
            size, channels = size // 2 if pool else size, width
        return total + channels


class Encoder(nn.Module):
    """A convolutional inference model, x [B, S, S, C] -> mean [B, d] and log variance [B, d] of q_phi(z | x).

    The network has one convolution per width, each followed by a leaky ReLU of slope 0.2. The last of these
    convolutions are 4 x 4 with stride 2. Each halves the size of the image, until 4 x 4 pixels are left. If there are
    more widths than halvings, the additional convolutions come first and are 3 x 3 with stride 1. Finally, two 4 x 4
    convolutions without padding compute the mean and the log variance.
    """

    widths: tuple[int, ...]
    latent_dim: int
    dtype: Any

    unroll_on_cpu = has_torch_names = True

    @nn.compact
    def __call__(self, x):
        num_halvings = (x.shape[1] // 4).bit_length() - 1
        y = x
        for i, width in enumerate(self.widths):
            halve = i >= len(self.widths) - num_halvings
            size, stride = (4, 2) if halve else (3, 1)
            y = conv(y, width, size, stride=stride, padding=1, dtype=self.dtype, name=f"conv{i}")
            y = nn.leaky_relu(y, 0.2)
        y = y.astype(x.dtype)
        mean = conv(y, self.latent_dim, 4, use_bias=True, name="mean")
        log_var = conv(y, self.latent_dim, 4, use_bias=True, name="log_var")
        return mean[:, 0, 0], log_var[:, 0, 0]

    def textbook_multiply_adds(self, input_shape):
        size, _, channels = input_shape
        total, num_halvings = 0, (size // 4).bit_length() - 1
        for i, width in enumerate(self.widths):
            halve = i >= len(self.widths) - num_halvings
            size //= 2 if halve else 1
            total += size**2 * channels * width * (16 if halve else 9)
            channels = width
        return total + 2 * 16 * channels * self.latent_dim
