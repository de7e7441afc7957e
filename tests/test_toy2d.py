"""Toy densities, each integrated another way."""

import numpy as np
import pytest
from scipy import integrate

from dualmcmc_jax.data import toy2d
from dualmcmc_jax.metrics import quadrature


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
