"""Annealed importance sampling of densities whose normalizing constant Z is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data import toy2d
from dualmcmc_jax.metrics import ais, quadrature

pytestmark = pytest.mark.slow


def test_paths_are_reflected_at_the_walls():
    """Compare with reflections worked out by hand. A reversed path ends at the start of the original path."""
    x, velocity = ais.reflect(jnp.array([0.3, 1.2, -1.5, 3.5]), jnp.ones(4), 1.0)
    np.testing.assert_allclose(x, [0.3, 0.8, -0.5, -0.5], atol=1e-12)
    np.testing.assert_array_equal(velocity, [1, -1, -1, 1])
    start, flight = jax.random.uniform(jax.random.key(0), (2, 1000), jnp.float64, -1, 1)
    end, velocity = ais.reflect(start + 7 * flight, flight, 1.0)
    again, _ = ais.reflect(end - 7 * velocity, velocity, 1.0)
    np.testing.assert_allclose(again, start, atol=1e-12)
    assert np.abs(end).max() <= 1


@pytest.mark.parametrize("num_steps", [1, 3])
def test_moves_preserve_the_density(num_steps):
    """The density is exp(2 x) on [-1, 1], with mean coth 2 - 1/2. Steps are long, so that walls are hit often."""
    log_density = lambda x: 2 * x.sum(-1)
    x = ais.uniform(jax.random.key(0), 4000, (3,), half_width=1.0, dtype=jnp.float64)

    def step(x, t):
        keys = chain_keys(jax.random.fold_in(jax.random.key(1), t), jnp.arange(4000))
        x, probability = ais.move(keys, x, log_density, 0.5, half_width=1.0, num_steps=num_steps)
        return x, probability.mean()

    x, probability = jax.jit(lambda x: jax.lax.scan(step, x, jnp.arange(100)))(x)
    assert np.mean(x) == pytest.approx(1 / np.tanh(2) - 0.5, abs=5 * float(np.std(x)) / x.size**0.5)
    assert np.var(x) == pytest.approx(0.25 - 1 / np.sinh(2) ** 2, rel=0.06)
    assert 0.3 < probability[-1] < 0.999


def schedule(log_f, size):
    """Return the betas of a schedule of 1,000 temperatures."""
    settings = {"half_width": 1.0, "num_temperatures": 1000, "dtype": jnp.float64}
    return ais.pilot(jax.random.key(0), (size,), lambda _: log_f, None, **settings).beta


def test_schedule_of_a_quadratic_energy_is_geometric():
    """In 50 dimensions, beta log f has the standard deviation 5 at every beta that makes the density narrow."""
    beta = schedule(lambda x: -0.5 * jnp.sum((x / 1e-3) ** 2, -1), 50)
    assert np.all(np.diff(beta) > 0)
    np.testing.assert_array_equal(beta[[0, -1]], [0, 1])
    low, high = (np.sum((beta > 10.0**-k) & (beta <= 10.0 ** (1 - k))) for k in (2, 1))
    assert low == pytest.approx(high, rel=0.1)


def test_schedule_does_not_depend_on_differences_between_modes_that_chains_do_not_leave():
    """Two narrow modes differ by 300 nats. Within a mode, each factor of 2 in beta has the same length."""
    mode = lambda x, mean: -0.5 * jnp.sum(((x - mean) / 0.01) ** 2, -1)
    beta = schedule(lambda x: jnp.logaddexp(mode(x, -0.5), mode(x, 0.5) - 300), 1)
    assert np.mean(beta > 0.5) < 0.25


def test_bounds_meet_at_the_exact_log_z():
    """The density is a Gaussian in ten dimensions that lies partly beyond the walls."""
    mean, std = np.linspace(-0.8, 0.8, 10), np.linspace(0.05, 1.0, 10)
    log_f = lambda x: -0.5 * jnp.sum(((x - mean) / std) ** 2, -1)
    share = ndtr((1 - mean) / std) - ndtr((-1 - mean) / std)
    exact = np.sum(np.log(share * std * np.sqrt(2 * np.pi)))
    settings = {"half_width": 1.0, "num_temperatures": 600, "num_chains": 300, "dtype": jnp.float64}
    below, above = ais.bounds(jax.random.key(0), lambda _: log_f, None, (10,), **settings)
    for bound in (below, above):
        assert bound.log_z == pytest.approx(exact, abs=4 * bound.error + 0.01)
        assert bound.error < 0.15
        assert bound.effective_sample_size > 30


def test_bounds_from_exact_samples_meet_for_separate_modes():
    """The chains do not move between the eight Gaussians, but exact samples of the density start in all of them."""
    truth = toy2d.density("8gaussians")
    cells = quadrature.grid(truth.half_width)
    angles = 2 * np.pi * np.arange(8) / 8
    centers = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    log_f = lambda x: 3 + jax.nn.logsumexp(-jnp.sum((x[:, None] - centers) ** 2, axis=-1) / 0.08, axis=-1)
    exact = 3 + np.log(8 * 2 * np.pi * 0.04)
    log_p = truth.log_density(cells.x)
    draw = lambda _: jnp.asarray(quadrature.sample(np.random.RandomState(0), cells, log_p, 500))
    settings = {"half_width": truth.half_width, "num_temperatures": 200, "num_chains": 500}
    settings["dtype"] = jnp.float64
    below, above = ais.bounds(jax.random.key(0), lambda _: log_f, None, (2,), draw=draw, **settings)
    for bound in (below, above):
        assert bound.log_z == pytest.approx(exact, abs=4 * bound.error + 0.01)
        assert bound.error < 0.15


def test_log_mean_estimates_its_error():
    """Equal weights have no error. Many weights have the error of the delta method; one dominant weight a large one."""
    assert ais.log_mean(np.full(7, 2.5)) == pytest.approx((2.5, 0, 7))
    log_w = 0.5 * np.random.RandomState(0).normal(size=2000)
    estimate, w = ais.log_mean(log_w), np.exp(log_w)
    assert estimate.log_z == pytest.approx(np.log(w.mean()))
    assert estimate.error == pytest.approx(w.std() / w.mean() / 2000**0.5, rel=0.1)
    assert estimate.effective_sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum())
    estimate = ais.log_mean(np.array([100.0, 0, 0, 0]))
    assert estimate.log_z == pytest.approx(100 - np.log(4))
    assert estimate.error > 10
