"""The exact rewrites: the same function as the textbook form, to rounding, in value and in every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook

from dualmcmc_jax import models
from dualmcmc_jax.configs import default
from dualmcmc_jax.models import layers


def config_of(size, channels=3, widths=(6, 6, 6, 6), num_pools=2):
    config = default.get_config()
    config.data.shape = (size, size, channels)
    levels = (size // 4).bit_length()
    config.energy.update(kind="resnet", widths=widths, num_pools=num_pools)
    config.generator.update(kind="resnet", widths=(6,) * levels, latent_dim=5)
    config.encoder.update(kind="resnet", widths=(6,) * (levels - 1))
    return config


def relative(actual, expected):
    return jnp.linalg.norm((actual - expected).ravel()) / jnp.linalg.norm(expected.ravel())


@pytest.mark.parametrize(
    ("size", "widths", "num_pools"),
    [(32, (6, 6, 6, 6), 2), (64, (3, 4, 5, 6, 7), 5), (8, (4,), 1), (16, (4, 4, 6), 0)],
)
@pytest.mark.parametrize("name", ["energy", "generator"])
def test_values_and_gradients(name, size, widths, num_pools):
    config = config_of(size, widths=widths, num_pools=num_pools)
    ours, theirs = (getattr(build(config), name) for build in (models.build, textbook.build))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), ours.init(jax.random.key(0)))
    shape = (5,) if name == "generator" else (size, size, 3)
    x = jax.random.normal(jax.random.key(1), (4, *shape))

    def outcome(net):
        weights = jax.random.normal(jax.random.key(2), jax.eval_shape(net.bind(params), x).shape)
        weighted = lambda params, x: (net.bind(params)(x) * weights).sum()
        return net.bind(params)(x), jax.grad(weighted, argnums=(0, 1))(params, x)

    actual, expected = jax.tree.leaves(jax.jit(outcome, static_argnums=0)(ours)), jax.tree.leaves(outcome(theirs))
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert relative(a, e) < 1e-11


@pytest.mark.parametrize("size", [2, 6])
def test_pooling_folds_into_a_kernel(size):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    convolve = lambda kernel, stride: jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = layers.avg_pool(convolve(kernel, 1))
    np.testing.assert_allclose(convolve(layers.fold_avg_pool(kernel), 2), expected, atol=1e-13)
