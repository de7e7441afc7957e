"""The likelihood of generators for which it is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_importance_weights_are_equal_for_the_exact_posterior():
    """Every weight equals p(x), so the effective sample size is the number of samples."""
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
