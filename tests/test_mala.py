"""Metropolis-adjusted Langevin chains, compared with closed forms and with their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dualmcmc_jax.core.langevin import chain_keys, clipped, normal
from dualmcmc_jax.core.mala import mala


def keys(num, seed=0):
    return chain_keys(jax.random.key(seed), jnp.arange(num))


def quartic(x):
    return -jnp.sum(x**4, axis=-1)


def quartic_draws(num):
    """Return exact draws [num, 1] from the density proportional to exp(-x^4): |x|^4 has a gamma distribution."""
    random = np.random.RandomState(0)
    return jnp.asarray((random.gamma(0.25, size=num) ** 0.25 * random.choice([-1, 1], num))[:, None])


@pytest.mark.parametrize("step_size", [0.02, 0.3])
def test_chains_have_the_exact_covariance(step_size):
    """The steps are so long that unadjusted chains would have a variance 19% (and more) too large along one axis."""
    covariance = np.array([[1.0, 0.6], [0.6, 0.8]])
    precision, mean, num = np.linalg.inv(covariance), np.array([0.5, -1.0]), 20_000
    log_density = lambda x: -0.5 * jnp.einsum("ni,ij,nj->n", x - mean, precision, x - mean)
    start = normal(keys(num, 1), (2,), jnp.float64) @ np.linalg.cholesky(covariance).T + mean
    run = jax.jit(lambda x: mala(keys(num), x, log_density, num_steps=60, step_size=step_size)[0])
    x = np.asarray(run(start))
    np.testing.assert_array_less(abs(x.mean(0) - mean), 4 * np.sqrt(np.diag(covariance) / num))
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_array_less(abs(np.cov(x.T) - covariance), 4 * scale * np.sqrt(2 / num))


def test_one_step_is_reversible():
    """From exact draws x, a step to y gives pairs (x, y) that are distributed like (y, x)."""
    x = quartic_draws(200_000)
    y = jax.jit(lambda x: mala(keys(len(x)), x, quartic, num_steps=1, step_size=0.2)[0])(x)
    assert 0.5 < np.mean(x != y) < 0.95
    x, y = np.asarray(x)[:, 0], np.asarray(y)[:, 0]
    for f, g in ((np.abs, lambda x: x**4), (lambda x: x > 0.5, lambda x: x**2), (np.cos, lambda x: x < -0.8)):
        difference = f(x) * g(y) - g(x) * f(y)
        assert abs(difference.mean()) < 4 * difference.std() / len(x) ** 0.5
    assert stats.kstest(y[:5000], np.asarray(quartic_draws(200_000))[5000:, 0]).pvalue > 1e-3


def test_one_step_with_a_clipped_score_is_reversible():
    """A clipped score changes the proposals and their densities, but not the density of the chain."""
    x = quartic_draws(100_000)
    y = jax.jit(lambda x: mala(keys(len(x)), x, clipped(quartic, 0.5), num_steps=1, step_size=0.2)[0])(x)
    assert np.mean(abs(4 * x**3) > 0.5) > 0.3  # the share of scores that are clipped
    x, y = np.asarray(x)[:, 0], np.asarray(y)[:, 0]
    for f, g in ((np.abs, lambda x: x**4), (lambda x: x > 0.5, lambda x: x**2), (np.cos, lambda x: x < -0.8)):
        difference = f(x) * g(y) - g(x) * f(y)
        assert abs(difference.mean()) < 4 * difference.std() / len(x) ** 0.5


def test_each_step_follows_the_equation():
    num, s, x = 4, 0.15, quartic_draws(4)
    drift = lambda x: x - 4 * s * x**3
    expected, states, log_p = x, [x], []
    for t in range(6):
        log_p.append(quartic(expected))
        noise, uniform = np.zeros((num, 1)), np.zeros(num)
        for i, key in enumerate(keys(num)):
            step_key = jax.random.fold_in(key, t)
            noise[i] = jax.random.normal(jax.random.fold_in(step_key, 0), (1,), jnp.float64)
            uniform[i] = jax.random.uniform(jax.random.fold_in(step_key, 1), dtype=jnp.float64)
        proposal = drift(expected) + np.sqrt(2 * s) * noise
        log_q = lambda to, start: stats.norm(drift(start), np.sqrt(2 * s)).logpdf(to)[:, 0]
        ratio = quartic(proposal) - quartic(expected) + log_q(expected, proposal) - log_q(proposal, expected)
        expected = jnp.where((np.log(uniform) < ratio)[:, None], proposal, expected)
        states.append(expected)
    end, trace = mala(keys(num), x, quartic, num_steps=6, step_size=s, keep_every=1)
    np.testing.assert_allclose(end, expected, rtol=1e-10)
    np.testing.assert_allclose(trace.states, jnp.stack(states), rtol=1e-10)
    np.testing.assert_allclose(trace.log_density, jnp.stack(log_p), rtol=1e-10)
    assert len(np.unique(trace.states)) < 7 * num


def test_no_steps_return_the_initial_states():
    x = quartic_draws(3)
    end, trace = mala(keys(3), x, quartic, num_steps=0, step_size=0.1)
    np.testing.assert_array_equal(end, x)
    assert trace.log_density.shape == (0, 3)
