"""Toy densities, compared with numerical integration."""

import numpy as np
import pytest
from scipy import integrate

from dualmcmc_jax.data import toy2d
from dualmcmc_jax.metrics import quadrature


@pytest.mark.parametrize("name", toy2d.names())
def test_density_equals_numerical_integration(name):
    """The density integrates to 1. At some points, it equals an adaptive integral of the noise density over the curve.

    The mean log-density of samples equals minus the entropy. Every component has an equal share of the samples.
    """
    density = toy2d.density(name)
    cells = quadrature.grid(density.half_width, 250)
    log_p = density.log_density(cells.x)
    p = np.exp(log_p)
    assert p.sum() * cells.area == pytest.approx(1, abs=1e-8)
    edge = np.abs(cells.x).max(axis=1) > density.half_width * (1 - 2 / 250)
    assert log_p[edge].max() < -40

    x = density.sample(np.random.RandomState(0), 20_000)
    of_x = density.log_density(x)
    assert of_x.mean() == pytest.approx(np.sum(p * log_p) * cells.area, abs=5 * of_x.std() / len(x) ** 0.5)
    shares = np.bincount(density.components(x).argmax(axis=1), minlength=density.num_components) / len(x)
    np.testing.assert_allclose(shares * density.num_components, 1, atol=0.2)

    num = 1 if name == "gaussian" else density.num_components  # u is not uniform along its line
    for point in np.concatenate([x[:3], [[0.3, -0.4], [2.5, 1.0]]]) if name != "gaussian" else []:
        noise = lambda u, v, k, point=point: (
            np.exp(-np.sum((density.place(np.array([k]), np.array([[u, v]]))[0] - point) ** 2) / (2 * density.std**2))
            / (2 * np.pi * density.std**2)
        )
        if name == "checkerboard":
            values = [integrate.dblquad(noise, 0, 1, 0, 1, (k,), epsabs=1e-9)[0] for k in range(num)]
        else:
            split = {"points": np.linspace(0, 1, 31), "limit": 200, "epsabs": 1e-12, "epsrel": 1e-10}
            values = [integrate.quad(lambda u, k=k, f=noise: f(u, 0.0, k), 0, 1, **split)[0] for k in range(num)]
        assert np.log(np.mean(values)) == pytest.approx(density.log_density(point), abs=1e-6)


def test_gaussian_is_the_density_of_a_linear_generator():
    """The covariance is w w^T + 0.25 I."""
    density = toy2d.density("gaussian")
    x = density.sample(np.random.RandomState(1), 200_000)
    w = 1.5 * np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    covariance = np.outer(w, w) + 0.25 * np.eye(2)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.03)
    exact = -0.5 * x[0] @ np.linalg.solve(covariance, x[0]) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    assert density.log_density(x[0]) == pytest.approx(exact, abs=1e-6)
