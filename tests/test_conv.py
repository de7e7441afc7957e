"""Convolutional networks, compared with explicit convolutions, and the images that they refuse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from dualmcmc_jax import models
from dualmcmc_jax.configs import default
from dualmcmc_jax.models import conv

NAMES = ("energy", "generator", "encoder")


def config_of(shape=(12, 20, 3), widths=(4, 5)):
    config = default.get_config()
    config.data.shape = shape
    config.generator.latent_dim = 3
    for name in NAMES:
        config[name].update(kind="conv", widths=widths)
    return config


def input_of(name, config, num=2):
    shape = (config.generator.latent_dim,) if name == "generator" else tuple(config.data.shape)
    return jax.random.normal(jax.random.key(1), (num, *shape))


def multiply_adds(jaxpr):
    """Count the multiply-adds of the convolutions and matrix products of a jaxpr."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            height, width, channels, _ = eqn.invars[1].aval.shape
            total += math.prod(eqn.outvars[0].aval.shape) * height * width * channels
        if eqn.primitive.name == "dot_general":
            total += math.prod(eqn.outvars[0].aval.shape) * eqn.invars[0].aval.shape[-1]
        for part in jaxprs_in_params(eqn.params):
            total += multiply_adds(part)
    return total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "widths"), [((12, 20, 3), (4, 5)), ((14, 6, 1), (4,))])
def test_networks_have_the_stated_shapes_and_costs(name, shape, widths):
    config = config_of(shape, widths)
    net = getattr(models.build(config), name)
    params = jax.eval_shape(net.init, jax.random.key(0))
    x = input_of(name, config, num=1)
    outputs = {"energy": (1,), "generator": (1, *shape), "encoder": ((1, 3), (1, 3))}
    assert jax.tree.map(lambda y: y.shape, jax.eval_shape(net.apply, params, x)) == outputs[name]
    assert net.textbook_multiply_adds == multiply_adds(jax.make_jaxpr(net.apply)(params, x).jaxpr)


@pytest.mark.parametrize("size", [6, 7])
def test_energy_halves_images_by_strided_convolutions(size):
    """At an odd size, padding the images first is the same as one more row and column of padding."""
    config = config_of((size, size, 2), widths=(3,))
    config.generator.kind = "mlp"
    net = models.build(config).energy
    params = jax.tree.map(lambda p: p.astype(jnp.float64), net.init(jax.random.key(0)))
    x = input_of("energy", config)
    y = jax.lax.conv_general_dilated(
        x,
        params["down"]["conv0"]["kernel"],
        (2, 2),
        [(1, 1 + size % 2)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = jax.nn.silu(y + params["down"]["conv0"]["bias"]).reshape(2, -1)
    expected = (y @ params["out"]["kernel"] + params["out"]["bias"])[:, 0]
    np.testing.assert_allclose(net.apply(params, x), expected, rtol=1e-12)


def test_depth_to_space_turns_channels_into_blocks_of_pixels():
    """Channel 2 r + s of pixel (i, j) becomes pixel (2 i + r, 2 j + s)."""
    x = jnp.arange(2 * 3 * 2 * 8.0).reshape(2, 3, 2, 8)
    y = conv.depth_to_space(x)
    assert y.shape == (2, 6, 4, 2)
    for r in (0, 1):
        for s in (0, 1):
            np.testing.assert_array_equal(y[:, r::2, s::2], x[..., 2 * (2 * r + s) : 2 * (2 * r + s) + 2])


def test_generator_stays_in_the_range_of_pixels_in_bfloat16():
    config = config_of()
    config.train.compute_dtype = "bfloat16"
    net = models.build(config).generator
    x = net.apply(net.init(jax.random.key(0)), 100 * input_of("generator", config).astype(jnp.float32))
    assert x.dtype == jnp.float32
    assert 0.5 < np.abs(x).max() <= 1


@pytest.mark.parametrize(
    ("name", "shape", "widths", "message"),
    [
        ("energy", (2,), (4,), r"data.shape: found \(2,\), expected \(H, W, C\) for a convolutional energy"),
        ("encoder", (8, 8, 1), (), r"encoder.widths: found \(\), expected positive integers"),
        (
            "generator",
            (28, 28, 1),
            (8, 4, 2),
            "generator.widths: found 3 widths, expected at most 2, because 28 x 28 pixels",
        ),
        (
            "generator",
            (28, 7, 1),
            (8,),
            "generator.widths: found 1 width, expected another kind of generator, because 28 x 7",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(name, shape, widths, message):
    config = default.get_config()
    config.data.shape = shape
    config[name].update(kind="conv", widths=widths)
    with pytest.raises(ValueError, match=message):
        models.build(config)
