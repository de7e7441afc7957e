"""The train step, compared with a plain implementation of the equations, and on different numbers of devices."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import resnet_config

from dualmcmc_jax import models
from dualmcmc_jax.configs import default, toy2d
from dualmcmc_jax.core import resampling
from dualmcmc_jax.core.langevin import Trace, chain_keys, normal
from dualmcmc_jax.data.batches import Batch, batch_indices
from dualmcmc_jax.training import optimizers
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.step import acceptance, average_decay, train_step, with_noise

LOSSES = ("energy_loss", "generator_loss", "encoder_loss")


def small(config, compute_dtype="float64", batch_size=8):
    """Set the number of steps of the chains, the dtype and the batch size of a config to values for tests."""
    config.x_chain.num_steps = 5
    config.z_chain.num_steps = 3
    config.train.update(compute_dtype=compute_dtype, batch_size=batch_size, ema_decay=0.9, unroll=1)
    return config


def data(config, num=32):
    """Return random images."""
    return np.random.default_rng(0).integers(0, 256, (num, *config.data.shape), dtype=np.uint8)


def start(config, num_devices=1):
    """Return the state before the first update, and the update for num_devices virtual devices."""
    nets = models.build(config, axis_name="batch")
    optimizer = optimizers.build(config, steps_per_epoch=4)
    update = jax.pmap(
        partial(train_step, nets=nets, optimizers=optimizer, config=config),
        axis_name="batch",
        in_axes=(None, 0),
        out_axes=None,
        devices=jax.devices()[:num_devices],
    )
    return train_state.create(config, nets, optimizer), update


def run(config, num_devices, num_steps):
    """Train on num_devices virtual devices. Return the final state and the metrics of each update."""
    state, update = start(config, num_devices)
    images, rows = data(config), []
    for step in range(num_steps):
        index = batch_indices(0, step, num_examples=len(images), batch_size=config.train.batch_size)
        index = index.reshape(num_devices, -1)
        state, row = update(state, Batch(images[index], index))
        rows.append(row)
    return state, jax.device_get(rows)


@pytest.fixture(scope="module")
def on_one_device():
    return run(small(resnet_config()), 1, 5)


@pytest.mark.parametrize("num_devices", [4, *(pytest.param(n, marks=pytest.mark.more) for n in (2, 8))])
@pytest.mark.slow
def test_any_number_of_devices_gives_the_same_run(num_devices, on_one_device):
    same_run(on_one_device[1], run(small(resnet_config()), num_devices, 5)[1])


@pytest.mark.more
def test_any_number_of_devices_with_fresh_negatives():
    config = small(resnet_config())
    config.loss.fresh_negatives = True
    same_run(run(config, 1, 3)[1], run(config, 4, 3)[1])


def same_run(expected, actual):
    """Assert that two runs have the same metrics."""
    for step, (one, other) in enumerate(zip(expected, actual, strict=True)):
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-9, err_msg=f"{name} {step}")


def plane_config(**x_chain):
    """Return a small config of points in the plane whose chains start at resampled states."""
    config = toy2d.get_config()
    for name in ("energy", "generator", "encoder"):
        config[name].widths = (8,)
    config.x_chain.update({"start_std": 0.3, "resample": 0.5, "proposals": 4, "broad_proposals": 1} | x_chain)
    config = small(config)
    config.x_chain.num_steps = config.z_chain.num_steps = 1
    return config


def run_in_plane(config, num_devices, num_steps):
    """Train on points. Return the final state and the metrics of each update."""
    points = np.random.default_rng(0).normal(size=(num_steps, num_devices, 8 // num_devices, 2)).astype(np.float32)
    state, update = start(config, num_devices)
    rows = []
    for x in points:
        state, row = update(state, Batch(x, np.zeros(x.shape[:2], np.int32)))
        rows.append(row)
    return jax.device_get(state.params), jax.device_get(rows)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [4, pytest.param(2, marks=pytest.mark.more)])
def test_any_number_of_devices_chooses_the_same_starts(num_devices):
    config = plane_config()
    params, rows = run_in_plane(config, 1, 3)
    other_params, other_rows = run_in_plane(config, num_devices, 3)
    numbers = lambda rows: [list(row.values()) for row in rows]
    np.testing.assert_allclose(numbers(other_rows), numbers(rows), rtol=1e-12)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-14), other_params, params)


@pytest.mark.slow
def test_broad_proposals_teach_the_energy_only(monkeypatch):
    """If all chains start at broad proposals, the model pairs have no effect on the generator and the encoder."""
    config = plane_config(broad_std=0.1)
    config.loss.generator.data_weight = config.loss.encoder.data_weight = 0.0
    original = resampling.log_weights

    def only_broad(x0, *args, **scales):
        return jnp.where(jnp.arange(len(x0)) % 4 == 3, original(x0, *args, **scales), -jnp.inf)

    _, usual = run_in_plane(config, 1, 1)
    monkeypatch.setattr(resampling, "log_weights", only_broad)
    _, broad = run_in_plane(config, 1, 1)
    for name in ("generator", "encoder"):
        assert usual[0][f"{name}_gradient_norm"] > 0
        assert broad[0][f"{name}_gradient_norm"] == 0
    assert broad[0]["energy_gradient_norm"] > 0


@pytest.mark.more
def test_any_number_of_devices_in_float32():
    config = small(resnet_config(), "float32")
    state, (expected,) = run(config, 1, 1)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32", "int32", "uint32"}
    _, (actual,) = run(config, 4, 1)
    for name in LOSSES:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-3)


def test_all_float32_products_have_full_precision():
    """By default, TPUs and GPUs would compute float32 products in bfloat16 or TF32."""
    config = small(resnet_config(), "float32")
    nets = models.build(config)
    optimizer = optimizers.build(config, steps_per_epoch=4)
    state = train_state.create(config, nets, optimizer)
    step = jax.vmap(
        partial(train_step, nets=nets, optimizers=optimizer, config=config), in_axes=(None, 0), axis_name="batch"
    )
    text = jax.jit(step).lower(state, Batch(data(config)[None, :8], np.arange(8)[None])).as_text()
    products = [line for line in text.splitlines() if "stablehlo.convolution" in line or "dot_general" in line]
    assert len(products) > 50
    assert all("HIGHEST" in line and "DEFAULT" not in line for line in products)


def test_noise_on_the_data_falls_linearly_to_0():
    config = default.get_config()
    config.data.noise_std = 0.4
    keys, x = chain_keys(jax.random.key(3), jnp.arange(20_000)), jnp.full((20_000, 2), 7.0)
    at_start = with_noise(keys, x, 0, config) - x
    assert at_start.std() == pytest.approx(0.4, rel=0.02)
    np.testing.assert_array_equal(with_noise(keys, x, 1000, config) - x, at_start)
    config.data.noise_steps = 8
    for step, left in ((0, 1), (2, 0.75), (4, 0.5), (8, 0), (100, 0)):
        np.testing.assert_allclose(with_noise(keys, x, step, config) - x, left * at_start, atol=1e-14)
    of_some = with_noise(keys[5:9], x[5:9], 2, config)  # as on a device that has only these examples
    np.testing.assert_array_equal(of_some, with_noise(keys, x, 2, config)[5:9])


@pytest.mark.slow
def test_noise_on_the_data_has_its_standard_deviation_on_any_number_of_devices():
    """On four devices, the updates equal those of one device on data to which the same noise was added beforehand.

    The standard deviations of three updates are 0.5, 0.25 and 0. Each example has its own key.
    """
    config = plane_config(resample=0.0)
    points = np.random.default_rng(0).normal(size=(3, 1, 8, 2)).astype(np.float32)
    state, update = start(config)
    key, expected = jax.random.wrap_key_data(state.key), []
    for step, std in enumerate((0.5, 0.25, 0.0)):
        noise_keys = chain_keys(jax.random.fold_in(jax.random.fold_in(key, step), 5), jnp.arange(8))
        noisy = points[step] + std * normal(noise_keys, (2,), jnp.float64)
        state, row = update(state, Batch(noisy, np.zeros((1, 8), np.int32)))
        expected.append(list(row.values()))
    config.data.update(noise_std=0.5, noise_steps=2)
    params, rows = run_in_plane(config, 4, 3)
    np.testing.assert_allclose([list(row.values()) for row in rows], expected, rtol=1e-12)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-14), params, jax.device_get(state.params))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_average_forgets_the_initial_parameters(dtype):
    """After n updates their share is 9! n! / (n + 9)!, until the decay rate reaches train.ema_decay after 8,990."""
    decays = jax.vmap(lambda t: average_decay(t, 0.999, dtype))(jnp.arange(20_000))
    assert decays.dtype == dtype
    share = np.cumprod(np.asarray(decays, np.float64))
    for n in (1, 10, 1000):
        np.testing.assert_allclose(share[n - 1], 1 / math.comb(n + 9, 9), rtol=1e-4 if dtype == np.float32 else 1e-11)
    assert decays[8989] < decays[8990]
    np.testing.assert_array_equal(decays[8990:], dtype(0.999))
    assert average_decay(0, 0.0) == 0


@pytest.mark.slow
def test_average_includes_spectral_norm():
    """The second update has decay 2 / 11: 2 / 11 of the old average and 9 / 11 of the parameters after spectral norm.

    With decay 0, the average equals the parameters.
    """
    config = perceptrons()
    first, second = (run(config, 1, n)[0] for n in (1, 2))
    energy = second.params.energy["mlp"]["hidden0"]["kernel"]
    u, v = second.vectors["mlp/hidden0/kernel"]
    used = second.params._asdict() | {"energy": energy / (v @ energy @ u)}
    old = first.average._asdict() | {"energy": first.average.energy["mlp"]["hidden0"]["kernel"]}
    new = second.average._asdict() | {"energy": second.average.energy["mlp"]["hidden0"]["kernel"]}
    moved = jax.tree.map(lambda old, used: (2 * old + 9 * used) / 11, old, used)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), new, moved)
    config.train.ema_decay = 0.0
    state, _ = run(config, 1, 2)
    jax.tree.map(np.testing.assert_array_equal, state.average.encoder, state.params.encoder)


def perceptrons():
    """Return a small config whose networks are MLPs."""
    config = small(default.get_config(), batch_size=3)
    for name in ("energy", "generator", "encoder"):
        config[name].widths = (7, 5)
    config.generator.latent_dim = 2
    config.energy.temperature = 0.01
    config.x_chain.step_size = 1e-4
    config.loss.energy.update(data_weight=1.5, model_weight=0.5)
    return config


@pytest.mark.parametrize("fresh_negatives", [False, True])
@pytest.mark.slow
def test_one_update_equals_a_plain_implementation(fresh_negatives):
    """The plain implementation computes each chain, loss, gradient and update separately."""
    config = perceptrons()
    config.loss.fresh_negatives = fresh_negatives
    config.optimizer.clip_norm = 0.5
    nets = models.build(config)
    state, update = start(config)
    not_converged = {path: (jnp.ones_like(u) / len(u) ** 0.5, v) for path, (u, v) in state.vectors.items()}
    state = state._replace(vectors=not_converged)  # so that the power iteration changes the vectors
    images = data(config, 3)
    new, metrics = update(state, Batch(images[None], np.arange(3)[None]))

    # Spectral norm: one power iteration. Then each kernel is divided by sigma = sum(kernel * outer(v, u)).
    p, outer = state.params, {}
    for path, (u, _) in state.vectors.items():
        _, layer, _ = path.split("/")
        w = np.asarray(p.energy["mlp"][layer]["kernel"])
        v = w @ u / np.linalg.norm(w @ u)
        u = w.T @ v / np.linalg.norm(w.T @ v)
        outer[layer] = np.outer(v, u)
        np.testing.assert_allclose(new.vectors[path][0], u, rtol=1e-9)
    assert outer.keys() == p.energy["mlp"].keys()

    def energy(params, x):
        normalized = {
            layer: {"kernel": leaf["kernel"] / jnp.sum(leaf["kernel"] * outer[layer]), "bias": leaf["bias"]}
            for layer, leaf in params["mlp"].items()
        }
        return nets.energy.bind({"mlp": normalized})(x)

    g, q = (lambda p, x, net=net: net.bind(p)(x) for net in nets[1:])
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    model_key, data_key, fresh_key = jax.random.split(key, 5)[:3]
    fold = jax.random.fold_in
    draw = lambda k, shape: jax.random.normal(k, (1, *shape), jnp.float64)
    temperature, s_x, s_z = config.energy.temperature, config.x_chain.step_size, config.z_chain.step_size
    d_energy = jax.grad(lambda x: energy(p.energy, x).sum())

    @jax.jit
    def model_pair(key, i, generator):
        k = fold(key, i)
        z = draw(fold(k, 0), (2,))
        x = g(generator, z)
        for t in range(config.x_chain.num_steps):
            noise = draw(fold(fold(k, 2), t), (8, 8, 1))
            x = x - s_x * d_energy(x) / temperature + np.sqrt(2 * s_x) * noise
        return x, z

    log_joint = lambda z, x: (
        -jnp.sum((x - g(p.generator, z)) ** 2) / (2 * config.generator.variance) - jnp.sum(z**2) / 2
    )
    d_joint = jax.grad(log_joint)

    @jax.jit
    def data_pair(i, x):
        k = fold(data_key, i)
        mean, log_var = q(p.encoder, x)
        z = mean + jnp.exp(log_var / 2) * draw(fold(k, 0), (2,))
        for t in range(config.z_chain.num_steps):
            z = z + s_z * d_joint(z, x) + np.sqrt(2 * s_z) * draw(fold(fold(k, 1), t), (2,))
        return x, z

    gather = lambda pairs: [jnp.concatenate(parts) for parts in zip(*pairs, strict=True)]
    x, z_post = gather(data_pair(i, images[i : i + 1] / 127.5 - 1) for i in range(3))
    x_model, z = gather(model_pair(model_key, i, p.generator) for i in range(3))

    @jax.jit
    def generator_loss(params):
        return (jnp.sum((g(params, z_post) - x) ** 2) + 50 * jnp.sum((g(params, z) - x_model) ** 2)) / 3

    @jax.jit
    def encoder_loss(params):
        def term(x, z):
            mean, log_var = q(params, x)
            return jnp.sum(log_var / 2 + (z - mean) ** 2 / (2 * (jnp.exp(log_var) + 1e-6))) / 3

        return term(x, z_post) + 0.1 * term(x_model, z)

    @jax.jit
    def adam(params, gradient, rate, l2):
        """Make the first step of Adam with betas (0, 0.9), after clipping to norm 0.5 and adding L2."""
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda g, w: g * jnp.minimum(1, 0.5 / norm) + l2 * w, gradient, params)
        return jax.tree.map(lambda w, g: w - rate * g / (jnp.abs(g) + 1e-8), params, gradient)

    learned = {
        "generator": adam(p.generator, jax.grad(generator_loss)(p.generator), 3e-4, 5e-4),
        "encoder": adam(p.encoder, jax.grad(encoder_loss)(p.encoder), 1e-4, 5e-4),
    }
    negatives = x_model
    if fresh_negatives:
        negatives, _ = gather(model_pair(fresh_key, i, learned["generator"]) for i in range(3))

    @jax.jit
    def energy_loss(params):
        return (1.5 * energy(params, x).mean() - 0.5 * energy(params, negatives).mean()) / temperature

    learned["energy"] = adam(p.energy, jax.grad(energy_loss)(p.energy), 1e-4, 0.0)

    for name, params in learned.items():
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-13), getattr(new.params, name), params)
    expected = {
        "energy_loss": energy_loss(p.energy),
        "generator_loss": generator_loss(p.generator),
        "encoder_loss": encoder_loss(p.encoder),
        "energy_data": energy(p.energy, x).mean(),
        "energy_model": energy(p.energy, negatives).mean(),
        "revision_mse": ((g(p.generator, z) - x_model) ** 2).mean(),
        "posterior_mse_end": ((g(p.generator, z_post) - x) ** 2).mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-9, err_msg=name)
    assert int(new.step) == 1


def test_posterior_mse_starts_at_the_encoder():
    """If the z-chain does not move, the reconstruction errors at its start and at its end are equal."""
    config = perceptrons()
    config.z_chain.update(num_steps=1, step_size=0.0)
    state, update = start(config)
    _, metrics = update(state, Batch(data(config, 3)[None], np.arange(3)[None]))
    np.testing.assert_allclose(metrics["posterior_mse_start"], metrics["posterior_mse_end"], rtol=1e-9)


def test_acceptance_is_a_metric_of_chains_that_reject_steps():
    trace = lambda values: Trace(None, None, values if values is None else jnp.asarray(values))
    metrics = acceptance(x=trace([[0.25, 1.0], [0.5, 0.25]]), z=trace(None))
    assert metrics == {"x_acceptance": 0.5}
    assert acceptance(x=trace(np.zeros((0, 2))), z=trace([[0.75]])) == {"z_acceptance": 0.75}  # no steps, no rate
