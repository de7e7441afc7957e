"""Layers, compared with their definitions, and networks for images of all sizes."""

import ast
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook

from dualmcmc_jax import config_check, models
from dualmcmc_jax.cli import startup
from dualmcmc_jax.configs import celeba64, celebahq256, default, images, lsun_church64
from dualmcmc_jax.models import layers, resnet

random = np.random.default_rng(3)


def resnet_config(size=8, channels=1, width=4, norm="batch", latent_dim=3):
    config = default.get_config()
    levels = int(np.log2(size)) - 1
    config.data.shape = (size, size, channels)
    config.generator.update(kind="resnet", widths=(width,) * levels, latent_dim=latent_dim, norm=norm)
    config.energy.update(kind="resnet", widths=(width,) * 3, num_pools=2)
    config.encoder.update(kind="resnet", widths=(width,) * levels)
    return config


def test_upsample_aligns_corners():
    """Pixel i of the output is the input at i (n - 1) / (2n - 1), by linear interpolation along both axes."""
    x = random.normal(size=(2, 4, 8, 3))
    actual = layers.upsample(jnp.asarray(x))
    assert actual.shape == (2, 8, 16, 3)
    for axis in (1, 2):
        n = x.shape[axis]
        source = np.arange(2 * n) * (n - 1) / (2 * n - 1)
        x = np.apply_along_axis(lambda line, s=source, n=n: np.interp(s, np.arange(n), line), axis, x)
    np.testing.assert_allclose(actual, x, rtol=1e-12)


def test_avg_pool_is_the_mean_of_four_pixels():
    x = random.normal(size=(2, 4, 6, 3))
    expected = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(layers.avg_pool(jnp.asarray(x)), expected, rtol=1e-12)


def test_batch_norm_uses_the_statistics_of_all_devices():
    x = jnp.asarray(random.normal(size=(8, 4, 4, 5)) * 3 + 7)
    params = layers.BatchNorm().init(jax.random.key(0), x)
    whole = layers.BatchNorm().apply(params, x)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / jnp.sqrt(variance + 1e-5) * params["params"]["scale"] + params["params"]["bias"]
    np.testing.assert_allclose(whole, expected, rtol=1e-10, atol=1e-10)
    shared = layers.BatchNorm("batch")
    split = jax.pmap(lambda x: shared.apply(params, x), axis_name="batch")(x.reshape(4, 2, 4, 4, 5))
    np.testing.assert_allclose(split.reshape(x.shape), whole, rtol=1e-10, atol=1e-10)


def test_batch_norm_is_accurate_if_the_mean_is_large():
    """The mean is subtracted before squares are summed. Otherwise the variance would be lost to float32 rounding."""
    x = np.float32(random.normal(size=(4, 4, 4, 2)) + 3000)
    norm = layers.BatchNorm()
    y = norm.apply({"params": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}, x)
    exact = (np.float64(x) - np.float64(x).mean((0, 1, 2))) / np.float64(x).std((0, 1, 2))
    np.testing.assert_allclose(y, exact, atol=2e-3)


@pytest.mark.parametrize("mean", [0, 1e4])
def test_batch_norm_in_one_pass_equals_that_in_two(mean):
    """Values agree within 1e-6 relative to the largest one, and gradients to rounding in float64."""
    x, w = random.normal(size=(8, 6, 6, 5)), random.normal(size=(8, 6, 6, 5))
    params = {"params": {"scale": jnp.ones(5), "bias": jnp.zeros(5)}}
    one = lambda x: jnp.sum(w * layers.BatchNorm().apply(params, x) ** 2)
    two = lambda x: jnp.sum(w * ((x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)) ** 2)
    np.testing.assert_allclose(jax.grad(one)(x + mean), jax.grad(two)(x + mean), rtol=1e-9, atol=1e-9)
    x32 = np.float32(3 * x + mean)
    variance = np.float64(x32).var((0, 1, 2))
    np.testing.assert_allclose(layers._moments(jnp.asarray(x32))[1], variance, rtol=2e-6)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: (x + abs(x)) / 2),
        ("swish", lambda x: x / (1 + jnp.exp(-x))),
        ("softplus", lambda x: jnp.log(1 + jnp.exp(x))),
    ],
)
def test_activations_follow_their_formulas_in_every_block(name, formula, monkeypatch):
    """The energy equals the textbook form in value and in score, although pooling is folded into its kernels.

    The textbook form computes the activation by the formula. softplus(0) is not 0, so its images must be padded after
    the activation.
    """
    config = resnet_config()
    config.energy.update(activation=name, widths=(3, 4), num_pools=1)
    ours, theirs = models.build(config).energy, textbook.build(config).energy
    params = jax.tree.map(jnp.float64, ours.init(jax.random.key(0)))
    x = jnp.asarray(random.normal(size=(2, 8, 8, 1)))
    outcome = lambda net: (net.apply(params, x), jax.grad(lambda x: net.apply(params, x).sum())(x))
    value, score = jax.jit(outcome, static_argnums=0)(ours)
    monkeypatch.setattr(textbook, "ACTIVATIONS", {name: formula})
    expected_value, expected_score = jax.jit(outcome, static_argnums=0)(theirs)
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    np.testing.assert_allclose(score, expected_score, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("norm", "independent"), [("group", True), ("batch", False)])
def test_group_norm_leaves_examples_independent(norm, independent):
    net = models.build(resnet_config(norm=norm)).generator
    params = net.init(jax.random.key(0))
    z = random.normal(size=(4, 3))
    alone, together = net.bind(params)(z[:1]), net.bind(params)(z)[:1]
    assert np.allclose(alone, together, atol=1e-10) == independent


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (32, 1), (256, 3)])
def test_residual_networks_at_every_size(size, channels):
    config = resnet_config(size, channels)
    nets = models.build(config)
    params = [jax.jit(net.init)(jax.random.key(i)) for i, net in enumerate(nets)]
    z = jnp.asarray(random.normal(size=(2, 3)))
    x = jax.jit(nets.generator.apply)(params[1], z)
    assert x.shape == (2, size, size, channels)
    assert abs(x).max() < 1
    energy = jax.jit(nets.energy.apply)(params[0], x)
    mean, log_var = jax.jit(nets.encoder.apply)(params[2], x)
    assert energy.shape == (2,)
    assert mean.shape == log_var.shape == (2, 3)
    for value in (x, energy, mean, log_var):
        assert jnp.isfinite(value).all()
        assert not jnp.allclose(value[0], value[1], rtol=1e-3)


@pytest.mark.parametrize("shape", [(8, 8, 1), (2,)])
def test_mlps_for_images_and_vectors(shape):
    """The generator's images lie in [-1, 1], its vectors are not bounded."""
    config = default.get_config()
    config.data.shape = shape
    nets = models.build(config)
    params = [net.init(jax.random.key(i)) for i, net in enumerate(nets)]
    x = nets.generator.bind(params[1])(10 * random.normal(size=(5, 128)))
    assert x.shape == (5, *shape)
    assert (abs(x).max() <= 1) == (len(shape) == 3)
    assert nets.energy.bind(params[0])(x).shape == (5,)
    assert [out.shape for out in nets.encoder.bind(params[2])(x)] == [(5, 128)] * 2


def test_initial_values():
    """Kernels of convolutions are Xavier normal. Linear layers and the biases of convolutions are uniform in
    +-1/sqrt(fan_in). The scales of normalization layers are drawn from N(0, 1), and their biases are 0.
    """
    config = resnet_config(size=32, channels=3, width=64, latent_dim=16)
    generator, encoder = (net.init(jax.random.key(7)) for net in models.build(config)[1:])
    kernel = generator["block1"]["conv1"]["kernel"]
    assert abs(kernel.std() / np.sqrt(2 / (9 * 64 + 9 * 64)) - 1) < 0.02
    assert abs(kernel).max() > 3.5 * kernel.std()  # normal, not truncated
    for layer, fan_in in (
        (generator["linear"]["kernel"], 16),
        (generator["linear"]["bias"], 16),
        (encoder["mean"]["bias"], 16 * 64),
    ):
        bound = fan_in**-0.5
        assert 0.8 * bound < abs(layer).max() <= bound
    scales = jnp.concatenate([generator[f"block{i}"][f"norm{j}"]["scale"] for i in (1, 2, 3) for j in (1, 2)])
    assert abs(scales.std() - 1) < 0.15
    assert not generator["norm"]["bias"].any()
    assert "bias" not in generator["block1"]["conv1"]


@pytest.mark.slow
def test_bfloat16_networks_return_float32():
    """Inputs and outputs are float32. The error shows that the layers between them compute in bfloat16."""
    config = resnet_config(size=16)
    in_float32 = models.build(config)
    config.train.compute_dtype = "bfloat16"
    in_bfloat16 = models.build(config)
    inputs = (
        random.normal(size=(4, 16, 16, 1)).astype(np.float32),
        random.normal(size=(4, 3)).astype(np.float32),
        random.normal(size=(4, 16, 16, 1)).astype(np.float32),
    )
    for net, low, x in zip(in_float32, in_bfloat16, inputs, strict=True):
        params = jax.tree.map(lambda p: p.astype(jnp.float32), jax.jit(net.init)(jax.random.key(0)))
        expected, actual = (jnp.stack(jax.tree.leaves(jax.jit(n.apply)(params, x))) for n in (net, low))
        assert actual.dtype == jnp.float32
        error = jnp.linalg.norm((actual - expected).ravel()) / jnp.linalg.norm(expected.ravel())
        assert 1e-5 < error < 0.05


@pytest.mark.parametrize(
    ("compute_dtype", "expected"),
    [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")],
)
def test_convolutions_have_the_precision_of_the_config(compute_dtype, expected):
    """On an NVIDIA GPU, XLA computes float32 products in TF32 at precision HIGH, and in float32 at HIGHEST."""
    before = jax.config.jax_default_matmul_precision, jax.config.jax_compilation_cache_dir
    config = resnet_config(size=16)
    config.train.compute_dtype = compute_dtype
    config_check.check(config)
    try:
        startup.start(config)
        net = models.build(config).energy
        params = net.init(jax.random.key(0))
        jaxpr = jax.make_jaxpr(net.apply)(params, jnp.zeros((4, 16, 16, 1)))
    finally:
        jax.config.update("jax_default_matmul_precision", before[0])
        jax.config.update("jax_compilation_cache_dir", before[1])
    convolutions = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "conv_general_dilated"]
    precisions = {str(p) for eqn in convolutions for p in eqn.params["precision"] or ("DEFAULT",)}
    assert precisions == {expected}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("generator.widths", (4, 4, 4), "generator.widths: found 3 levels, expected 2 at 8 pixels"),
        ("energy.widths", (4, 0), "energy.widths: found (4, 0), expected positive integers"),
        ("energy.num_pools", 4, "energy.num_pools: found 4, expected 0 to 3;"),
        (
            "energy.widths",
            (4,),
            "energy.num_pools: found 2, expected 0 to 1 for 1 energy.widths, or 2 of them: "
            '--config.energy.widths="(4,4)"; these would fit: --config.energy.num_pools="1"',
        ),
        ("energy.kind", "resent", "'quadratic'; did you mean resnet?"),
        ("generator.norm", "bacth", "did you mean batch?"),
        ("energy.activation", "silu", "energy.activation: found 'silu', expected one of 'relu', 'swish', 'softplus'"),
        ("encoder.widths", (), "encoder.widths: found (), expected positive integers"),
        ("data.shape", (12, 12, 1), "data.shape: found (12, 12, 1), expected (S, S, 1 or 3) with S in"),
    ],
)
def test_invalid_network_configs_are_refused(field, value, message):
    config = resnet_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match="found") as error:
        models.build(config)
    assert message in str(error.value)


def test_all_widths_that_do_not_fit_are_named_with_flags_that_would_fit():
    config = celeba64.get_config()
    config.data.shape = (8, 8, 3)
    config.energy.num_pools = 9
    config.encoder.widths = ()
    with pytest.raises(ValueError, match="found") as error:
        models.build(config)
    for name in ("energy.num_pools: found 9", "generator.widths: found 5 levels", "encoder.widths: found ()"):
        assert name in str(error.value)
    config.encoder.widths = (8,)
    config.data.shape = (256, 256, 3)
    with pytest.raises(ValueError, match="these would fit: ") as error:
        models.build(config)
    flags = re.findall(r'--config.([\w.]+)="(.*?)"', str(error.value))
    assert [name for name, _ in flags] == ["generator.widths", "encoder.widths", "energy.num_pools"]
    config.update_from_flattened_dict({name: ast.literal_eval(value) for name, value in flags})
    models.build(config)


def test_recipes_of_the_papers_other_data_sets_extend_that_of_celeba64():
    """At resolutions up to 64 x 64, the networks have equal blocks. Each new level is half as wide as the one below."""
    base, church, faces = (module.get_config() for module in (celeba64, lsun_church64, celebahq256))
    for config in (church, faces):
        config_check.check(config)
        models.build(config)
    for name in ("energy", "generator", "encoder"):
        assert church[name] == base[name]
    assert faces.energy.widths == (16, 32, *base.energy.widths)
    assert faces.generator.widths == (*base.generator.widths, 32, 16)
    assert faces.encoder.widths == (32, 64, *base.encoder.widths)


@pytest.mark.parametrize("size", resnet.SIZES)
def test_networks_of_the_images_config_fit_every_size(size):
    config = images.get_config().lock()
    config.data.shape = (size, size, 1)
    models.build(config)
    assert len(config.encoder.widths) == np.log2(size / 4)
    config.encoder.widths = (7,) * 7
    models.build(config)
    assert config.encoder.widths == (7,) * 7
    assert config.data.shape == (size, size, 1)
