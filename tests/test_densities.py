"""Log-densities, compared with scipy and with each other."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal, norm

from dualmcmc_jax.core import densities

random = np.random.default_rng(0)
z = random.normal(size=(5, 3))
x = random.normal(size=(5, 2, 2))
weight = random.normal(size=(3, 4))
decode = lambda z: jnp.tanh(z @ weight).reshape(-1, 2, 2)


def test_log_joint_is_prior_times_likelihood():
    expected = [
        multivariate_normal.logpdf(zi, np.zeros(3))
        + multivariate_normal.logpdf(xi.ravel(), np.tanh(zi @ weight), 0.045 * np.eye(4))
        for zi, xi in zip(z, x, strict=True)
    ]
    np.testing.assert_allclose(densities.log_joint(x, z, decode, variance=0.045), expected, rtol=1e-12)


def test_log_posterior_equals_scipys_and_stays_finite():
    mean, log_var = random.normal(size=(2, 5, 3))
    expected = norm.logpdf(z, mean, np.exp(log_var / 2)).sum(1)
    np.testing.assert_allclose(densities.log_posterior(z, mean, log_var), expected, rtol=1e-4)
    collapsed = densities.log_posterior(jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.full((1, 1), -1e3))
    assert jnp.isfinite(collapsed).all()


def test_log_ebm_is_minus_energy_over_temperature():
    np.testing.assert_allclose(densities.log_ebm(x, densities.squared_norm, temperature=0.5), -2 * (x**2).sum((1, 2)))


def test_squared_error_is_computed_from_the_log_joint():
    log_joint = densities.log_joint(x, z, decode, variance=0.045)
    mse = densities.mean_squared_error(log_joint, x, z, variance=0.045)
    np.testing.assert_allclose(mse, ((x - decode(z)) ** 2).mean((1, 2)), rtol=1e-12)


def test_score_of_the_joint_equals_that_of_the_authors_code():
    """The authors' z-chain follows grad_z log p(x, z) = -(grad sum (g(z) - x)^2 / 0.3^2 + z)."""
    error = lambda z: jnp.sum((decode(z) - x) ** 2) / 0.3**2
    expected = -(jax.grad(error)(z) + z)
    actual = jax.grad(lambda z: densities.log_joint(x, z, decode, variance=0.045).sum())(z)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
