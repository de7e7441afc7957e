"""Comparison with the ground-truth density: a perfect model, a model that misses a mode, and a trained model."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_marginal_likelihood import linear

import dualmcmc_jax
from dualmcmc_jax import models
from dualmcmc_jax.configs import toy2d as config_toy2d
from dualmcmc_jax.data import sources, toy2d
from dualmcmc_jax.evaluation import ground_truth_density, question
from dualmcmc_jax.metrics import quadrature
from dualmcmc_jax.model import Model
from dualmcmc_jax.report import figures

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_metrics_recognize_a_perfect_model_and_a_missing_mode():
    """The ground-truth energy has no divergence and misses no mode. An energy without one mode is detected.

    The x-chain has the known bias of Langevin dynamics: steps of size s on N(m, v) have the stationary variance
    v / (1 - s / (2 v)).
    """
    config = config_toy2d.get_config()
    config.x_chain.update(num_steps=30, step_size=0.005, resample=0.05, proposals=50, broad_proposals=10, broad_std=2.0)
    truth = toy2d.density("8gaussians")
    angles = 2 * np.pi * np.arange(8) / 8
    centers = 2 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)

    def energy(num):
        square = lambda x: jnp.sum((x[:, None] - centers[:num]) ** 2, axis=-1)
        return lambda x: -jax.nn.logsumexp(-square(x) / (2 * 0.2**2), axis=-1)

    x = truth.sample(np.random.RandomState(5), 200)
    dataset = sources.Dataset(x, x, name="toy2d:8gaussians", density=truth)
    inputs = question.Inputs(dataset, x, space=None, statistics=None, kept={"revised": x})
    results = []
    for num in (8, 7):
        bind = energy(num), linear, lambda x: (0.1 * x, jnp.zeros_like(x))
        nets = models.Nets(*(models.Net(None, lambda _, f=f: f) for f in bind))
        model = Model.create(config, models.Params({}, {}, {}), nets=nets)
        results.append(ground_truth_density.measure(model, inputs).metrics)
    perfect, missing = results
    undeclared = [key for key in perfect if not any(part.find(key) for part in ground_truth_density.SECTIONS)]
    assert not undeclared
    for name in ("kl_data_model", "kl_model_data"):
        assert perfect[f"density/ebm/{name}"] == pytest.approx(0, abs=1e-6)
    assert perfect["density/ebm/log_likelihood"] == pytest.approx(perfect["density/data/log_likelihood"], abs=1e-4)
    assert perfect["density/ebm/missed_modes"] == perfect["density/revised/missed_modes"] == 0
    assert perfect["density/ebm/smallest_mode"] == pytest.approx(1, abs=1e-3)
    assert perfect["chain/x/variance_bias"] == pytest.approx(1 / (1 - 0.005 / (2 * 0.04)) - 1, abs=0.03)
    by_importance = perfect["density/generator/log_likelihood_by_importance"]
    assert by_importance == pytest.approx(perfect["density/generator/log_likelihood"], abs=0.1)
    # At beta = 1, the samples have the shares of the EBM, although the generator's are others.
    assert perfect["density/ebm/mode_error_data"] < 1e-3
    assert perfect["density/generator/mode_error_data"] > 0.15
    assert perfect["density/revised/mode_error_ebm"] < 0.03
    assert perfect["density/revised_without_resampling/mode_error_ebm"] > 0.1
    assert missing["density/revised/mode_error_ebm"] < 0.03
    assert missing["density/ebm/mode_error_data"] == pytest.approx(1 / 8, abs=1e-3)
    assert missing["density/ebm/missed_modes"] == 1
    assert missing["density/ebm/smallest_mode"] < 1e-3
    assert missing["density/ebm/kl_data_model"] > 1


def test_figure_shows_both_densities(tmp_path):
    """The figure shows the ground-truth density and the model's density on the same scale, and both sets of samples."""
    truth = toy2d.density("moons")
    cells = quadrature.grid(truth.half_width, 100)
    side = truth.log_density(cells.x).reshape(100, 100)
    x = truth.sample(np.random.RandomState(0), 500)
    squares = ground_truth_density.Densities(side, side[::-1])
    samples = {"generator": x, "revised": x}
    figure = ground_truth_density.figure(squares, samples, half_width=truth.half_width)
    shown = [axis.images[0].get_array() for axis in figure.axes[:2]]
    np.testing.assert_allclose(shown[0], np.exp(side.T))  # rows are x2
    np.testing.assert_allclose(shown[1], shown[0][:, ::-1])
    scale = figure.axes[4]
    assert scale.get_ylabel() == "probability density"
    assert scale.get_ylim() == pytest.approx((0, np.exp(side.max())))
    assert figures.save(tmp_path / "known.png", figure).shape[1] > 1000


@pytest.mark.more
@pytest.mark.parametrize(
    ("num_steps", "largest"),
    [(1000, 0.6), (2000, 0.1), (8000, 0.003)],
)
def test_trained_energy_is_close_to_the_density(num_steps, largest, programs, tmp_path):
    """Bound KL(data, EBM) in nats on eight Gaussians, with seed 0."""
    flags = ["--config=toy2d", f"--workdir={tmp_path}", f"--config.train.num_steps={num_steps}"]
    done = programs.run(*flags, env={"XLA_FLAGS": ""}, timeout=900)
    assert done.returncode == 0, done.stderr
    model = dualmcmc_jax.load(tmp_path)
    truth = toy2d.density("8gaussians")
    cells = quadrature.grid(truth.half_width)
    log_q = quadrature.normalized(model.log_density(cells.x.astype(np.float32)), cells.area)
    kl = quadrature.kl_divergence(truth.log_density(cells.x), log_q, cells.area)
    print(f"KL(data, EBM) = {kl:.4f} nats")
    assert kl < largest
