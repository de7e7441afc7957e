"""Baselines: their losses against closed forms, the computations that they skip, and persistent chains."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step
import tiny

from dualmcmc_jax import models
from dualmcmc_jax.benchmark import program
from dualmcmc_jax.cli import command_line
from dualmcmc_jax.configs import baselines
from dualmcmc_jax.configs.baselines import abp, cooperative, divergence_triangle, no_mcmc, persistent, short_run, vae
from dualmcmc_jax.configs.baselines import short_run_abp as short_run_inference
from dualmcmc_jax.core import densities, langevin, losses
from dualmcmc_jax.data.batches import Batch
from dualmcmc_jax.evaluation import suite
from dualmcmc_jax.training import loop
from dualmcmc_jax.training import persistent_chains as chains

pytestmark = pytest.mark.slow

B, D, d = 6, 4, 2
random = np.random.default_rng(2)
x, z, noise = random.normal(size=(B, D)), random.normal(size=(B, d)), random.normal(size=(B, d))
w, v, log_var = random.normal(size=(D, d)), random.normal(size=(d, D)), random.normal(size=d)
BASELINES = (abp, cooperative, divergence_triangle, no_mcmc, persistent, short_run, short_run_inference, vae)
decode = lambda w: lambda z: z @ w.T
encode = lambda v, log_var: lambda x: (x @ v.T, jnp.tile(log_var, (len(x), 1)))


def test_elbo_loss_gradients_equal_those_by_hand():
    """g(z) = W z and q = N(V x, e^l). The gradients of V and l also pass through z = V x + e^(l/2) noise."""
    variance = 0.3
    loss = lambda w, v, log_var: losses.elbo_loss(
        encode(v, log_var), decode(w), x, noise, variance=variance, weight=2.0
    )
    (value, terms), (by_w, by_v, by_l) = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(w, v, log_var)
    mean, std = x @ v.T, np.exp(log_var / 2)
    sample = mean + std * noise
    residual = x - sample @ w.T
    divergence = 0.5 * np.sum(mean**2 + std**2 - log_var - 1, axis=1)
    np.testing.assert_allclose(terms["elbo"], np.mean(np.sum(residual**2, axis=1) + 2 * variance * divergence))
    np.testing.assert_allclose(value, 2 * terms["elbo"])
    by_sample = -2 * residual @ w  # [B, d]
    np.testing.assert_allclose(by_w, 2 * -2 * residual.T @ sample / B, rtol=1e-12)
    np.testing.assert_allclose(by_v, 2 * (by_sample + 2 * variance * mean).T @ x / B, rtol=1e-12)
    expected = by_sample * noise * std / 2 + variance * (std**2 - 1)
    np.testing.assert_allclose(by_l, 2 * expected.mean(axis=0), rtol=1e-12)


def test_elbo_with_the_exact_posterior_is_the_log_likelihood():
    """For a linear generator and its exact posterior, -loss / (2 sigma^2) equals log p(x) up to a known constant."""
    variance = 0.3
    precision = np.eye(d) + w.T @ w / variance
    # Rotate the latents so that the posterior's covariance is diagonal.
    axes, _ = np.linalg.qr(np.linalg.eigh(precision)[1])
    rotated = w @ axes
    precisions = np.diag(axes.T @ precision @ axes)
    posterior = encode((rotated.T / variance) / precisions[:, None], -np.log(precisions))
    draws = np.random.default_rng(0).normal(size=(400_000, d))
    repeated = np.tile(x[:1], (len(draws), 1))
    loss, _ = losses.elbo_loss(posterior, decode(rotated), repeated, draws, variance=variance, weight=1.0)
    constant = 0.5 * D * np.log(2 * np.pi * variance)
    covariance = w @ w.T + variance * np.eye(D)
    exact = -0.5 * x[0] @ np.linalg.solve(covariance, x[0]) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    assert -loss / (2 * variance) - constant == pytest.approx(exact, abs=0.02)


def test_generated_loss_gradient_equals_that_by_hand():
    """E(x) = |x|^2 / 2. The gradient of W passes through x = W z, in the energy and in log q."""
    temperature = 0.7
    loss = lambda w: losses.generated_loss(
        lambda x: 0.5 * densities.squared_norm(x),
        decode(w),
        encode(v, log_var),
        z,
        temperature=temperature,
        energy_weight=3.0,
        posterior_weight=5.0,
    )
    (value, terms), by_w = jax.value_and_grad(loss, has_aux=True)(w)
    generated, precision = z @ w.T, 1 / (np.exp(log_var) + 1e-6)
    residual = z - generated @ v.T
    np.testing.assert_allclose(terms["energy_generated"], 0.5 * np.mean(np.sum(generated**2, axis=1)))
    nats = 0.5 * np.mean(np.sum(log_var + residual**2 * precision, axis=1))
    np.testing.assert_allclose(terms["nats_generated"], nats, rtol=1e-12)
    np.testing.assert_allclose(value, 3 * terms["energy_generated"] / temperature + 5 * nats, rtol=1e-12)
    expected = 3 * generated.T @ z / temperature / B - 5 * (residual * precision @ v).T @ z / B
    np.testing.assert_allclose(by_w, expected, rtol=1e-10)


def test_losses_with_weight_zero_are_not_computed():
    """A term of weight 0 does not call its network. A loss without terms has gradient 0."""
    failing_network = lambda _: 1 / 0
    assert losses.energy_loss(failing_network, x, x, temperature=1.0, data_weight=0.0, model_weight=0.0) == (0, {})
    value, terms = losses.generator_loss(decode(w), (x, None), (x, z), data_weight=0.0, model_weight=1.0)
    zero_weights = {"data_weight": 0.0, "model_weight": 0.0}
    assert jax.grad(lambda w: losses.generator_loss(decode(w), (x, z), (x, z), **zero_weights)[0])(1.0) == 0
    assert terms.keys() == {"error_model"}
    assert value == terms["error_model"]


def small(baseline):
    """Return a small config of a baseline, with perceptrons as networks."""
    config = baseline.baseline(test_step.perceptrons())
    if config.x_chain.init == "persistent":
        config.x_chain.num_chains = 16
    if config.z_chain.init == "persistent":
        config.z_chain.num_chains = 32
    config.train.batch_size = 8
    config.x_chain.num_steps = min(config.x_chain.num_steps, 5)
    for name in ("generator", "encoder"):
        config.optimizer[name].l2 = 0.0
    return config


def has_persistent_chains(config):
    return "persistent" in (config.x_chain.init, config.z_chain.init)


QUICK = (divergence_triangle, persistent)
MARKED = [baseline if baseline in QUICK else pytest.param(baseline, marks=pytest.mark.more) for baseline in BASELINES]


@pytest.mark.parametrize("baseline", MARKED, ids=lambda baseline: baseline.__name__.split(".")[-1])
def test_baseline_trains_only_its_networks(baseline):
    """The trained networks change, and the others do not. Runs with persistent chains are equal on 1 and 4 devices."""
    config = small(baseline)
    before, _ = test_step.start(config)
    state, rows = test_step.run(config, 1, 4 if has_persistent_chains(config) else 1)
    moved = lambda net: bool(jax.tree.reduce(jnp.add, jax.tree.map(lambda a, b: jnp.sum(a != b), *net)))
    trained = {name for name in before.params._fields if moved([getattr(s.params, name) for s in (before, state)])}
    all_networks = {"energy", "generator", "encoder"}
    expected = {
        "short_run": {"energy"},
        "persistent": {"energy"},
        "abp": {"generator"},
        "short_run_abp": {"generator"},
        "vae": {"generator", "encoder"},
    }
    assert trained == expected.get(baseline.__name__.split(".")[-1], all_networks)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    if has_persistent_chains(config):
        test_step.same_run(rows, test_step.run(config, 4, 4)[1])
    names = suite.of_trained(
        config, dict.fromkeys(("energy/train/mean", "generator/fid", "reconstruction/encoder/mse"), 0.0)
    )
    needs = {"energy/train/mean": "energy", "generator/fid": "generator", "reconstruction/encoder/mse": "encoder"}
    assert set(names) == {name for name, net in needs.items() if net in trained}


def test_unused_losses_are_not_computed():
    """Count the multiply-adds of the compiled update: a VAE runs no chains, and a short-run EBM no generator."""

    def multiply_adds(config):
        config.energy.spectral_norm = False
        state, _ = test_step.start(config)
        nets, updates = models.build(config, axis_name="batch"), loop.optimizers.build(config, steps_per_epoch=1)
        update = loop.compiled_step(config, nets, updates, devices=jax.devices()[:1])
        batch = Batch(test_step.data(config, 8)[None], np.arange(8)[None])
        return program.cost(update.lower(state, batch).compile().as_text()).multiply_adds / 8

    config = small(vae)
    widths = ((64, 7, 5, 4), (2, 7, 5, 64))
    forward = [sum(a * b for a, b in itertools.pairwise(net)) for net in widths]
    inputs = 64 * 7  # the gradient with respect to the data is not computed
    assert multiply_adds(config) == pytest.approx(3 * sum(forward) - inputs, rel=0.02)
    config = small(short_run)
    energy = 64 * 7 + 7 * 5 + 5
    chain, loss = 2 * config.x_chain.num_steps * energy, 2 * (3 * energy - inputs)
    assert multiply_adds(config) == pytest.approx(chain + loss, rel=0.05)


def test_persistent_chains_continue_from_their_last_state(monkeypatch):
    """Compare with a plain loop. Each update continues the next batch_size chains, and some chains restart."""
    monkeypatch.setattr(chains, "RESTARTS", 0.3)
    config = small(persistent)
    config.x_chain.num_chains = 12  # not a multiple of the batch
    config.energy.spectral_norm = False
    state, update = test_step.start(config)
    states, fold, images = np.array(state.chains.x), jax.random.fold_in, test_step.data(config)
    energy = models.build(config).energy
    restarted = 0
    for step in range(6):
        key = fold(jax.random.wrap_key_data(state.key), step)
        model_key, *_, restart_key = jax.random.split(key, 5)
        indices = (8 * step + np.arange(8)) % 12
        start = states[indices]
        for i in range(8):
            if jax.random.uniform(fold(restart_key, i)) < 0.3:
                start[i] = jax.random.normal(fold(fold(restart_key, i), 1), (8, 8, 1))
                restarted += 1
        bound = energy.bind(state.params.energy)
        keys = jax.vmap(lambda i, key=model_key: fold(fold(key, i), 2))(np.arange(8))
        log_f = lambda x, bound=bound: -bound(x) / config.energy.temperature
        settings = {"num_steps": config.x_chain.num_steps, "step_size": config.x_chain.step_size}
        states[indices], _ = langevin.langevin(keys, jnp.asarray(start), log_f, **settings)
        state, _ = update(state, Batch(images[None, :8], np.arange(8)[None]))
        np.testing.assert_allclose(state.chains.x, states, rtol=1e-9, atol=1e-12)
    assert restarted
    assert state.chains.z is None


def test_persistent_latents_belong_to_their_examples():
    config = small(abp)
    config.z_chain.step_size = 1e-14  # the latents hardly move
    state, update = test_step.start(config)
    before, images, index = np.array(state.chains.z), test_step.data(config), np.array([[3, 30, 1, 7, 9, 12, 2, 5]])
    state, _ = update(state, Batch(images[index], index))
    np.testing.assert_allclose(state.chains.z, before, atol=1e-5)
    config.z_chain.step_size = 0.005
    state, update = test_step.start(config)
    before = np.array(state.chains.z)
    state, _ = update(state, Batch(images[index], index))
    moved = np.flatnonzero(np.any(np.abs(state.chains.z - before) > 1e-6, axis=1))
    np.testing.assert_array_equal(moved, np.sort(index[0]))


@pytest.mark.parametrize("baseline", [persistent, pytest.param(abp, marks=pytest.mark.more)])
def test_runs_with_persistent_chains_resume_bit_for_bit(baseline, tmp_path):
    """A run of 40 updates equals a run of 20 updates that is stopped and resumed for 20 more."""
    from dualmcmc_jax.data import sources

    config = baseline.baseline(tiny.config(x_chain__num_chains=100))
    config.x_chain.num_chains = 100
    train = partial(loop.train, dataset=sources.load(config.data), draw=lambda *_: {}, measure=lambda _: {})
    whole = train(config, tmp_path / "whole")
    config.train.num_steps = 20
    train(config, tmp_path / "parts")
    config.train.num_steps = 40
    jax.tree.map(np.testing.assert_array_equal, train(config, tmp_path / "parts"), whole)


def test_invalid_numbers_of_chains_are_refused():
    config = persistent.baseline(tiny.config())
    config.x_chain.num_chains = 39
    with pytest.raises(ValueError, match=r"^x_chain.num_chains: found 39, expected 40 or more"):
        loop.check_chains(config, 1500)
    config = abp.baseline(tiny.config())
    with pytest.raises(
        ValueError,
        match=r"^z_chain.num_chains: found 1500, expected 1400, one for each .* number of examples has changed",
    ):
        loop.check_chains(config, 1400)
    with pytest.raises(ValueError, match=r"^found 'nothing', expected the name of a config"):
        baselines.named("nothing")


def test_config_flag_accepts_baselines_of_configs():
    with pytest.raises(ValueError, match="found 'rivals/vae', expected its new name 'baselines/vae'"):
        command_line._with_config_path("--config=rivals/vae:toy2d")
    assert command_line._with_config_path("--config=baselines/vae:toy2d").endswith("configs/baselines/vae.py:toy2d")
    with pytest.raises(ValueError, match=r"^--config: found 'toy' after the colon, expected one of .*digits"):
        command_line._with_config_path("--config=baselines/vae:toy")
