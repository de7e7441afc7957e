"""Exact rewrites of the networks, compared with the textbook form in value and in every gradient."""

import authors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook

from dualmcmc_jax import models
from dualmcmc_jax.configs import default
from dualmcmc_jax.models import layers, spectral_norm

pytestmark = pytest.mark.slow


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
    [
        pytest.param(32, (6, 6, 6, 6), 2, marks=pytest.mark.more),
        pytest.param(64, (3, 4, 5, 6, 7), 5, marks=pytest.mark.more),
        (8, (4,), 1),
        (16, (4, 4, 6), 0),
    ],
)
@pytest.mark.parametrize("name", ["energy", "generator"])
def test_values_and_gradients_equal_the_textbook_form(name, size, widths, num_pools):
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
def test_average_pooling_can_be_folded_into_a_kernel(size):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    convolve = lambda kernel, stride: jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = layers.avg_pool(convolve(kernel, 1))
    np.testing.assert_allclose(convolve(layers.fold_avg_pool(kernel), 2), expected, atol=1e-13)


@pytest.mark.parametrize(("name", "bound"), [("cifar10", 0.06), pytest.param("celeba64", 0.15, marks=pytest.mark.more)])
def test_bfloat16_energy_gradients_are_close_to_float32(name, bound):
    """Use the weights of the authors' networks. Rounding these weights alone causes a relative error of 3% and 4%."""
    reference = authors.load(name)
    config = authors.config(name, reference)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), authors.params(reference, config).energy)
    params = spectral_norm.normalize(params, jax.tree.map(jnp.float32, authors.vectors(reference, config)))
    x = jnp.asarray(authors.nhwc(reference["x"]), jnp.float32)
    gradients = {}
    for dtype in ("float32", "bfloat16"):
        config.train.compute_dtype = dtype
        energy = models.build(config).energy.bind(params)
        gradients[dtype] = jax.jit(jax.grad(lambda x, energy=energy: energy(x).sum()))(x)
        assert gradients[dtype].dtype == jnp.float32
    error = relative(gradients["bfloat16"], gradients["float32"])
    print(f"\n{name}: {error:.3f}")
    assert 1e-3 < error < bound


def test_kernels_are_folded_and_rounded_outside_the_chain():
    """Only kernels have the last axes [24, 24]. No folding or rounding in the loop returns an array with these axes."""
    config = config_of(32, widths=(24, 24, 24, 24))
    config.train.compute_dtype = "bfloat16"
    net = models.build(config).energy
    params = net.init(jax.random.key(0))

    def run(params, x):
        energy = net.bind(params)
        step = lambda x, _: (x - jax.grad(lambda x: energy(x).sum())(x), None)
        return jax.lax.scan(step, x, None, length=9)[0]

    jaxpr = jax.make_jaxpr(run)(params, jnp.zeros((2, 32, 32, 3)))
    (scan,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
    body = scan.params["jaxpr"].jaxpr.eqns
    assert any(eqn.primitive.name == "conv_general_dilated" for eqn in body)
    for eqn in body:
        if eqn.primitive.name in ("pad", "convert_element_type", "add", "div"):
            assert eqn.outvars[0].aval.shape[-2:] != (24, 24), eqn
