"""The residual networks in their textbook form, without any rewriting of pooling, upsampling and shortcuts.

The authors' code has the same form. The parameters are those of dualmcmc_jax.models.resnet, so that values, gradients
and speed can be compared.
"""

import flax.linen as nn
import jax.numpy as jnp

from dualmcmc_jax import models
from dualmcmc_jax.models.build import Net, Nets
from dualmcmc_jax.models.layers import ACTIVATIONS, avg_pool, conv, linear, norm, upsample


class DownBlock(nn.Module):
    width: int
    pool: bool
    first: bool
    activation: str

    @nn.compact
    def __call__(self, x):
        activate = ACTIVATIONS[self.activation]
        y = x if self.first else activate(x)
        y = activate(conv(y, self.width, 3, padding=1, name="conv1"))
        y = conv(y, self.width, 3, padding=1, name="conv2")
        if self.pool or x.shape[-1] != self.width:
            x = conv(x, self.width, 1, name="shortcut")
        return avg_pool(x) + avg_pool(y) if self.pool else x + y


class Energy(nn.Module):
    widths: tuple[int, ...]
    num_pools: int
    activation: str

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate(self.widths):
            x = DownBlock(width, i < self.num_pools, i == 0, self.activation, name=f"block{i}")(x)
        return linear(ACTIVATIONS[self.activation](x).mean((1, 2)), 1, use_bias=False, name="linear")[:, 0]


class UpBlock(nn.Module):
    width: int
    norm: str
    axis_name: str | None

    @nn.compact
    def __call__(self, x):
        y = upsample(nn.relu(norm(self.norm, x, axis_name=self.axis_name, name="norm1")))
        y = conv(y, self.width, 3, padding=1, name="conv1")
        y = nn.relu(norm(self.norm, y, axis_name=self.axis_name, name="norm2"))
        y = conv(y, self.width, 3, padding=1, name="conv2")
        return y + conv(upsample(x), self.width, 1, name="shortcut")


class Generator(nn.Module):
    widths: tuple[int, ...]
    channels: int
    norm: str
    axis_name: str | None

    @nn.compact
    def __call__(self, z):
        x = linear(z, 16 * self.widths[0], name="linear").reshape(-1, 4, 4, self.widths[0])
        for i, width in enumerate(self.widths[1:], 1):
            x = UpBlock(width, self.norm, self.axis_name, name=f"block{i}")(x)
        x = nn.relu(norm(self.norm, x, axis_name=self.axis_name, name="norm"))
        return jnp.tanh(conv(x, self.channels, 3, padding=1, use_bias=True, name="conv"))


def build(config, axis_name: str | None = None) -> Nets:
    """Return the networks of a config with residual energy and generator. The encoder is that of the program."""
    net = lambda module, init: Net(init, lambda params: lambda x: module.apply({"params": params}, x))
    ours, shape = models.build(config, axis_name), config.data.shape
    energy = Energy(tuple(config.energy.widths), config.energy.num_pools, config.energy.activation)
    generator = Generator(tuple(config.generator.widths), shape[-1], config.generator.norm, axis_name)
    return Nets(net(energy, ours.energy.init), net(generator, ours.generator.init), ours.encoder)
