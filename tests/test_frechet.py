"""The Frechet distance against closed forms, cases done by hand, and scipy."""

import tracemalloc

import numpy as np
import pytest
from scipy import linalg

from dualmcmc_jax.metrics.frechet import Accumulator, Moments, frechet_distance, moments


def gaussian(random, d):
    root = random.normal(size=(d, d)) / np.sqrt(d)
    return Moments(random.normal(size=d), root @ root.T + 0.1 * np.eye(d))


def by_sqrtm(x, y):
    root = linalg.sqrtm(x.covariance @ y.covariance).real
    return np.sum((x.mean - y.mean) ** 2) + np.trace(x.covariance + y.covariance - 2 * root)


def test_frechet_of_gaussians_that_commute():
    """Diagonal covariances: sum of (m1 - m2)^2 + (s1 - s2)^2."""
    random = np.random.RandomState(0)
    (m1, m2), (s1, s2) = random.normal(size=(2, 7)), random.uniform(0.1, 2, (2, 7))
    turn = linalg.qr(random.normal(size=(7, 7)))[0]
    x, y = (Moments(turn @ m, turn @ np.diag(s**2) @ turn.T) for m, s in ((m1, s1), (m2, s2)))
    expected = np.sum((m1 - m2) ** 2 + (s1 - s2) ** 2)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_frechet_is_scipys():
    random = np.random.RandomState(1)
    x, y = gaussian(random, 40), gaussian(random, 40)
    assert frechet_distance(x, y) == pytest.approx(by_sqrtm(x, y), rel=1e-8)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert abs(frechet_distance(x, x)) < 1e-6


def test_frechet_of_fewer_samples_than_dimensions():
    """Of two samples each, whose covariances have rank one, by hand."""
    d = 50
    e = np.eye(d)
    x, y = moments(np.stack([e[0], -e[0]])), moments(np.stack([3 * e[0] + e[1], -3 * e[0] + e[1]]))
    # means differ by 1; variances along e0 are 2 and 18: (sqrt 18 - sqrt 2)^2 = 8
    assert frechet_distance(x, y) == pytest.approx(1 + 8, abs=1e-6)
    assert abs(frechet_distance(x, x)) < 1e-6
    many = moments(np.random.RandomState(2).normal(size=(100, 1000)))
    assert abs(frechet_distance(many, many)) < 1e-6
    assert np.isnan(frechet_distance(x, x._replace(mean=x.mean * np.nan)))
    far = np.random.RandomState(2).normal(size=(10, d))
    assert frechet_distance(moments(far), moments(far[::-1])) == pytest.approx(0, abs=1e-6)


def test_moments_come_a_batch_at_a_time():
    """Also far from zero, where sums of squares would lose the digits."""
    x = np.random.RandomState(4).normal(1e6, 1, (1003, 5))
    accumulator = Accumulator(5)
    for part in np.split(x, [1, 100, 700, 1002]):
        accumulator.add(part)
    found = accumulator.moments()
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), atol=1e-9)


def test_moments_hold_one_matrix():
    """Ten thousand features of 256 dimensions, 20 MB of them, pass through in less than 3 MB."""
    accumulator = Accumulator(256)
    random = np.random.RandomState(9)
    tracemalloc.start()
    for _ in range(100):
        accumulator.add(random.normal(size=(100, 256)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6
