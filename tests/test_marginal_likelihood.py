"""The likelihood of generators for which it is known in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualmcmc_jax.core import importance
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.metrics import marginal_likelihood


def linear(z):
    return z @ jnp.array([[1.5, 0.5], [-0.3, 0.8]], z.dtype)


def test_likelihood_of_a_linear_generator_equals_the_closed_form():
    """Use quadrature, and importance sampling from the exact posterior without its off-diagonal covariances."""
    w, variance = np.array(linear(jnp.eye(2))), 0.1
    x = np.random.RandomState(0).normal(size=(40, 2))
    covariance = w.T @ w + variance * np.eye(2)
    exact = -0.5 * np.sum(x @ np.linalg.inv(covariance) * x, -1) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    by_quadrature = marginal_likelihood.quadrature(linear, x, variance=variance, num_points=600)
    np.testing.assert_allclose(by_quadrature, exact, atol=1e-8)
    precision = np.eye(2) + w @ w.T / variance
    encode = lambda x: (
        x @ (w.T @ np.linalg.inv(precision)) / variance,
        jnp.broadcast_to(jnp.log(jnp.diag(jnp.linalg.inv(precision))), x.shape),
    )
    keys = chain_keys(jax.random.key(0), jnp.arange(40))
    run = jax.jit(lambda x: importance.log_marginal(keys, encode, linear, x, variance=variance, num_samples=4000))
    log_p, size = run(jnp.asarray(x))
    np.testing.assert_allclose(log_p, exact, atol=5 * np.sqrt(1 / np.min(size)))
    assert np.mean(log_p - exact) == pytest.approx(0, abs=0.02)
    assert np.all((size > 1000) & (size < 4000))


def steep(slope, x, variance=0.3**2 / 2):
    """Return the refined log-likelihoods of g(z) = (slope z_1, z_2), as `refined` does, and their closed form."""
    decode = lambda z: z * jnp.array([slope, 1.0])
    integral = jax.jit(
        lambda x, n: marginal_likelihood.quadrature(decode, x, variance=variance, num_points=n), static_argnums=1
    )
    v = np.array([slope**2, 1.0]) + variance
    return partial(integral, x), -0.5 * np.sum(x**2 / v + np.log(2 * np.pi * v), axis=-1)


def test_grid_is_refined_for_a_steep_generator():
    """At slope 40 the grid of 600 x 600 points is too coarse. The grids of 1,200 and of 2,400 agree."""
    integral, exact = steep(40.0, np.array([[35.0, 0.3], [10.0, -1.0], [-22.5, 0.6]]))
    assert np.abs(integral(600) - exact).max() > 0.1
    log_p, change = marginal_likelihood.refined(integral)
    assert change <= marginal_likelihood.TOLERANCE
    np.testing.assert_allclose(log_p, exact, atol=1e-6)


def test_grid_that_stays_too_coarse_is_noticed():
    """A generator in float64 may be measured on examples in float32."""
    integral, exact = steep(4000.0, np.array([[100.0, 0.3], [-2000.0, 1.0]], np.float32))
    log_p, change = marginal_likelihood.refined(integral, most_points=600)
    assert log_p.dtype == np.float32
    assert change > marginal_likelihood.TOLERANCE
    assert np.abs(log_p - exact).max() > 1


def test_memory_of_the_finest_grid_is_that_of_one_row():
    """All 4,800 x 4,800 terms of 500 examples would take 46 GB in float32."""
    decode = lambda z: 2 * z
    x, n = jnp.zeros((500, 2), np.float32), marginal_likelihood.MOST_POINTS
    program = jax.jit(lambda x: marginal_likelihood.quadrature(decode, x, variance=0.1, num_points=n))
    assert program.lower(x).compile().memory_analysis().temp_size_in_bytes < 1e8


def test_importance_weights_are_equal_for_the_exact_posterior():
    """Every weight equals p(x), so the effective sample size is the number of samples."""
    variance = 0.3
    decode = lambda z: 2 * z
    precision = 1 + 4 / variance
    encode = lambda x: (2 * x / variance / precision, jnp.full(x.shape, -np.log(precision)))
    x = jnp.array(np.random.RandomState(0).normal(size=(5, 3)))
    keys = chain_keys(jax.random.key(1), jnp.arange(5))
    log_p, size = importance.log_marginal(keys, encode, decode, x, variance=variance, num_samples=7)
    exact = -0.5 * np.sum(x**2, -1) / (4 + variance) - 1.5 * np.log(2 * np.pi * (4 + variance))
    np.testing.assert_allclose(log_p, exact, rtol=1e-12)
    np.testing.assert_allclose(size, 7, rtol=1e-12)
