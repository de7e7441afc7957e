"""Known densities: each integrated another way, what is measured against them, and an energy that learns one."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from dualmcmc_jax import models
from dualmcmc_jax.configs import toy2d as config_toy2d
from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import chain_keys, langevin
from dualmcmc_jax.data import toy2d
from dualmcmc_jax.evaluation import ground_truth_density, suite
from dualmcmc_jax.metrics import acceptance, marginal_likelihood, quadrature
from dualmcmc_jax.models.build import Net, Params
from dualmcmc_jax.training import checkpointing

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", toy2d.names())
def test_density(name):
    """It integrates to 1 and, at some points, is the noise's density averaged over the curve adaptively.

    The samples' mean log-density is minus the entropy, and each component gets its share.
    """
    known = toy2d.density(name)
    cells = quadrature.grid(known.half_width, 250)
    log_p = known.log_density(cells.x)
    p = np.exp(log_p)
    assert p.sum() * cells.area == pytest.approx(1, abs=1e-8)
    edge = np.abs(cells.x).max(axis=1) > known.half_width * (1 - 2 / 250)
    assert log_p[edge].max() < -40

    x = known.sample(np.random.RandomState(0), 20_000)
    of_x = known.log_density(x)
    assert of_x.mean() == pytest.approx(np.sum(p * log_p) * cells.area, abs=5 * of_x.std() / len(x) ** 0.5)
    shares = np.bincount(known.components(x).argmax(axis=1), minlength=known.num_components) / len(x)
    np.testing.assert_allclose(shares * known.num_components, 1, atol=0.2)

    num = 1 if name == "gaussian" else known.num_components  # its u is not uniform along the line
    for point in np.concatenate([x[:3], [[0.3, -0.4], [2.5, 1.0]]]) if name != "gaussian" else []:
        noise = lambda u, v, k, point=point: (
            np.exp(-np.sum((known.place(np.array([k]), np.array([[u, v]]))[0] - point) ** 2) / (2 * known.std**2))
            / (2 * np.pi * known.std**2)
        )
        if name == "checkerboard":
            values = [integrate.dblquad(noise, 0, 1, 0, 1, (k,), epsabs=1e-9)[0] for k in range(num)]
        else:
            split = {"points": np.linspace(0, 1, 30), "limit": 200, "epsabs": 1e-12, "epsrel": 1e-10}
            values = [integrate.quad(lambda u, k=k, f=noise: f(u, 0.0, k), 0, 1, **split)[0] for k in range(num)]
        assert np.log(np.mean(values)) == pytest.approx(known.log_density(point), abs=1e-6)


def test_gaussian_is_what_a_linear_generator_makes():
    """Its covariance is w w^T + 0.25 I."""
    known = toy2d.density("gaussian")
    x = known.sample(np.random.RandomState(1), 200_000)
    w = 1.5 * np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    covariance = np.outer(w, w) + 0.25 * np.eye(2)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.03)
    exact = -0.5 * x[0] @ np.linalg.solve(covariance, x[0]) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    assert known.log_density(x[0]) == pytest.approx(exact, abs=1e-6)


def test_kl_divergence_of_gaussians():
    cells = quadrature.grid(8.0, 400)
    log_normal = lambda mean, std: -np.sum((cells.x - mean) ** 2, axis=-1) / (2 * std**2) - np.log(2 * np.pi * std**2)
    log_p, log_q = log_normal((0.3, -0.2), 0.7), quadrature.normalized(log_normal((0.0, 0.0), 1.1) + 3, cells.area)
    exact = 2 * (np.log(1.1 / 0.7) + 0.7**2 / (2 * 1.1**2) - 0.5) + (0.3**2 + 0.2**2) / (2 * 1.1**2)
    assert quadrature.kl_divergence(log_p, log_q, cells.area) == pytest.approx(exact, abs=1e-9)
    draws = quadrature.sample(np.random.RandomState(0), cells, log_p, 50_000)
    np.testing.assert_allclose(draws.mean(0), (0.3, -0.2), atol=0.02)
    np.testing.assert_allclose(draws.std(0), 0.7, rtol=0.02)


def linear(z):
    return z @ jnp.array([[1.5, 0.5], [-0.3, 0.8]], z.dtype)


def test_likelihood_of_a_linear_generator():
    """By quadrature, and by importance sampling from its posterior up to what is off the diagonal of its covariance."""
    w, variance = np.array(linear(jnp.eye(2))), 0.1
    x = np.random.RandomState(0).normal(size=(40, 2))
    covariance = w.T @ w + variance * np.eye(2)
    exact = -0.5 * np.sum(x @ np.linalg.inv(covariance) * x, -1) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    by_quadrature = marginal_likelihood.quadrature(linear, x, variance=variance)
    np.testing.assert_allclose(by_quadrature, exact, atol=1e-8)
    precision = np.eye(2) + w @ w.T / variance
    encode = lambda x: (
        x @ (w.T @ np.linalg.inv(precision)) / variance,
        jnp.broadcast_to(jnp.log(jnp.diag(jnp.linalg.inv(precision))), x.shape),
    )
    keys = chain_keys(jax.random.key(0), jnp.arange(40))
    run = jax.jit(
        lambda x: marginal_likelihood.importance(keys, encode, linear, x, variance=variance, num_samples=4000)
    )
    log_p, size = run(jnp.asarray(x))
    np.testing.assert_allclose(log_p, exact, atol=5 * np.sqrt(1 / np.min(size)))
    assert np.mean(log_p - exact) == pytest.approx(0, abs=0.02)
    assert np.all((size > 1000) & (size < 4000))


def test_importance_from_the_exact_posterior():
    """Every weight is p(x) itself, so that all draws count and one is enough."""
    variance = 0.3
    decode = lambda z: 2 * z
    precision = 1 + 4 / variance
    encode = lambda x: (2 * x / variance / precision, jnp.full(x.shape, -np.log(precision)))
    x = jnp.array(np.random.RandomState(0).normal(size=(5, 3)))
    keys = chain_keys(jax.random.key(1), jnp.arange(5))
    log_p, size = marginal_likelihood.importance(keys, encode, decode, x, variance=variance, num_samples=7)
    exact = -0.5 * np.sum(x**2, -1) / (4 + variance) - 1.5 * np.log(2 * np.pi * (4 + variance))
    np.testing.assert_allclose(log_p, exact, rtol=1e-12)
    np.testing.assert_allclose(size, 7, rtol=1e-12)


def test_acceptance():
    """Of Langevin steps on N(0, 1), against the rule written out in NumPy; and near 1 for small steps."""
    log_density = lambda x: -0.5 * densities.squared_norm(x)
    rates = {}
    for s in (0.5, 1e-4):
        x0 = jax.random.normal(jax.random.key(3), (2000, 2))
        keys = chain_keys(jax.random.key(0), jnp.arange(2000))
        _, trace = langevin(keys, x0, log_density, num_steps=5, step_size=s, keep_every=1)
        rates[s] = float(acceptance.rate(trace.states, log_density, step_size=s))
        x, y = (np.asarray(part, np.float64) for part in (trace.states[:-1], trace.states[1:]))
        log_pi = lambda x: -0.5 * np.sum(x**2, -1)
        log_move = lambda x, y, s=s: -np.sum((y - (1 - s) * x) ** 2, -1) / (4 * s)
        ratio = np.exp(log_pi(y) + log_move(y, x) - log_pi(x) - log_move(x, y))
        assert rates[s] == pytest.approx(np.minimum(1, ratio).mean(), rel=1e-6)
    assert 0.5 < rates[0.5] < 0.99
    assert rates[1e-4] > 0.999


def test_a_perfect_model(monkeypatch):
    """An energy that is the truth: no divergence, no missed mode, and the bias of Langevin steps on a Gaussian.

    Steps of size s on N(m, v) have the stationary variance v / (1 - s / (2 v)). An energy without one mode is found.
    """
    config = config_toy2d.get_config()
    truth = toy2d.density("8gaussians")
    angles = 2 * np.pi * np.arange(8) / 8
    centers = 2 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)

    def energy(num):
        square = lambda x: jnp.sum((x[:, None] - centers[:num]) ** 2, axis=-1)
        return lambda x: -jax.nn.logsumexp(-square(x) / (2 * 0.2**2), axis=-1)

    x = truth.sample(np.random.RandomState(5), 1000)
    found = []
    for num in (8, 7):
        bind = energy(num), linear, lambda x: (0.1 * x, jnp.zeros_like(x))
        nets = models.Nets(*(Net(None, lambda _, f=f: f) for f in bind))
        monkeypatch.setattr(models, "build", lambda config, nets=nets: nets)
        compared = ground_truth_density.compare(config, truth, Params({}, {}, {}), x, {"revised": x[:500]}, seed=0)
        found.append(compared.metrics)
        monkeypatch.undo()
    perfect, missing = found
    for name in ("kl_data_model", "kl_model_data"):
        assert perfect[f"density/ebm/{name}"] == pytest.approx(0, abs=1e-6)
    assert perfect["density/ebm/log_likelihood"] == pytest.approx(perfect["density/data/log_likelihood"], abs=1e-4)
    assert perfect["density/ebm/missed_modes"] == perfect["density/revised/missed_modes"] == 0
    assert perfect["density/ebm/smallest_mode"] == pytest.approx(1, abs=1e-3)
    assert perfect["chain/x/variance_bias"] == pytest.approx(1 / (1 - 0.005 / (2 * 0.04)) - 1, abs=0.03)
    by_sampling = perfect["density/generator/log_likelihood_by_importance"]
    assert by_sampling == pytest.approx(perfect["density/generator/log_likelihood"], abs=0.1)
    assert missing["density/ebm/missed_modes"] == 1
    assert missing["density/ebm/smallest_mode"] < 1e-3
    assert missing["density/ebm/kl_data_model"] > 1


def test_the_figure(tmp_path):
    """The truth and the energy on one scale, and both samples."""
    config = config_toy2d.get_config()
    config.data.source = "toy2d:moons"
    truth = ground_truth_density.of(config)
    cells = quadrature.grid(truth.half_width)
    side = truth.log_density(cells.x).reshape(500, 500)
    x = truth.sample(np.random.RandomState(0), 500)
    squares = {"data": side, "ebm": side[::-1]}
    figure = suite.figures.known(squares, {"generator": x, "revised": x}, half_width=truth.half_width)
    shown = [axis.images[0].get_array() for axis in figure.axes[:2]]
    np.testing.assert_allclose(shown[0], np.exp(side.T))  # rows are x2
    np.testing.assert_allclose(shown[1], shown[0][:, ::-1])
    assert suite.figures.save(tmp_path / "known.png", figure).shape[1] > 1000


@pytest.mark.slow
@pytest.mark.parametrize(("num_steps", "largest"), [(1500, 0.5), pytest.param(5000, 0.06, marks=pytest.mark.more)])
def test_the_energy_learns_the_density(num_steps, largest, tmp_path):
    """KL(data, EBM) on eight Gaussians, seed 0, in nats; chains without noise end at 2.9."""
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    main = [sys.executable, "-m", "dualmcmc_jax.main", "--config=configs/toy2d.py", f"--workdir={tmp_path}"]
    main += [f"--config.train.num_steps={num_steps}"]
    subprocess.run(main, cwd=ROOT, env=env, check=True, timeout=900)
    config = config_toy2d.get_config()
    config.train.num_steps = num_steps
    params = checkpointing.restore(config, tmp_path).average
    energy = models.build(config).energy
    truth = ground_truth_density.of(config)
    cells = quadrature.grid(truth.half_width)
    log_f = jax.jit(lambda x: -energy.bind(params.energy)(x) / config.energy.temperature)(cells.x.astype(np.float32))
    log_q = quadrature.normalized(log_f, cells.area)
    kl = quadrature.kl_divergence(truth.log_density(cells.x), log_q, cells.area)
    print(f"KL(data, EBM) = {kl:.4f} nats")
    assert kl < largest
