"""Multiply-adds of one update as a textbook writes it: what the compiled program is measured against.

A forward pass counts each convolution at the resolution where it is written (pooling and interpolation after and before
it, shortcuts at the larger size), padding included. A gradient with respect to the input costs the same again, one with
respect to the parameters too.
"""

import itertools
import math


def energy(config) -> int:
    """Of E(x), per example."""
    widths, num = config.energy.widths, math.prod(config.data.shape)
    if config.energy.kind == "quadratic":
        return _perceptron(num, num)
    if config.energy.kind == "mlp":
        return _perceptron(num, *widths, 1)
    (size, *_, channels), total = config.data.shape, 0
    for i, width in enumerate(widths):
        pool = i < config.energy.num_pools
        shortcut = channels * width if pool or channels != width else 0
        total += size**2 * (9 * channels * width + 9 * width**2 + shortcut)
        size, channels = size // 2 if pool else size, width
    return total + channels


def generator(config) -> int:
    """Of g(z), per example."""
    widths, dim = config.generator.widths, config.generator.latent_dim
    if config.generator.kind == "mlp":
        return _perceptron(dim, *widths, math.prod(config.data.shape))
    total, size, channels = dim * 16 * widths[0], 4, widths[0]
    for width in widths[1:]:
        size *= 2
        total += size**2 * (9 * channels * width + 9 * width**2 + channels * width)
        channels = width
    return total + 9 * channels * config.data.shape[-1] * size**2


def encoder(config) -> int:
    """Of q(z | x), per example."""
    widths = config.encoder.widths
    if config.encoder.kind == "mlp":
        return _perceptron(math.prod(config.data.shape), *widths, 2 * config.generator.latent_dim)
    size, *_, channels = config.data.shape
    total, num_halvings = 0, (size // 4).bit_length() - 1
    for i, width in enumerate(widths):
        halve = i >= len(widths) - num_halvings
        size //= 2 if halve else 1
        total += size**2 * channels * width * (16 if halve else 9)
        channels = width
    return total + 2 * 16 * channels * config.generator.latent_dim


def x_chain(config) -> int:
    """Of the x-revision, per example."""
    return 2 * config.x_chain.num_steps * energy(config)


def z_chain(config) -> int:
    """Of the z-revision, per example."""
    return 2 * config.z_chain.num_steps * generator(config)


def step(config) -> int:
    """Of one update, per example: the chains, their starts, and the three losses of two batches each."""
    starts = generator(config) + encoder(config)
    losses = 2 * 3 * (energy(config) + generator(config) + encoder(config))
    fresh = x_chain(config) + generator(config) if config.loss.fresh_negatives else 0
    return x_chain(config) + z_chain(config) + starts + losses + fresh


def _perceptron(*widths: int) -> int:
    return sum(a * b for a, b in itertools.pairwise(widths))
