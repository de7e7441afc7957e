"""Quadrature of 2-D densities, compared with closed forms of Gaussians."""

import numpy as np
import pytest

from dualmcmc_jax.metrics import quadrature


def test_kl_divergence_and_samples_equal_those_of_gaussians():
    cells = quadrature.grid(8.0, 400)
    log_normal = lambda mean, std: -np.sum((cells.x - mean) ** 2, axis=-1) / (2 * std**2) - np.log(2 * np.pi * std**2)
    log_p, log_q = log_normal((0.3, -0.2), 0.7), quadrature.normalized(log_normal((0.0, 0.0), 1.1) + 3, cells.area)
    exact = 2 * (np.log(1.1 / 0.7) + 0.7**2 / (2 * 1.1**2) - 0.5) + (0.3**2 + 0.2**2) / (2 * 1.1**2)
    assert quadrature.kl_divergence(log_p, log_q, cells.area) == pytest.approx(exact, abs=1e-9)
    draws = quadrature.sample(np.random.RandomState(0), cells, log_p, 50_000)
    np.testing.assert_allclose(draws.mean(0), (0.3, -0.2), atol=0.02)
    np.testing.assert_allclose(draws.std(0), 0.7, rtol=0.02)
