"""The Frechet distance, compared with closed forms, cases worked out by hand, and scipy."""

import tracemalloc

import numpy as np
import pytest
from scipy import linalg

from dualmcmc_jax.metrics.frechet import Accumulator, Moments, frechet_distance, moments


def gaussian(random, d):
    root = random.normal(size=(d, d)) / np.sqrt(d)
    return Moments(random.normal(size=d), root @ root.T + 0.1 * np.eye(d))


def distance_by_sqrtm(x, y):
    root = linalg.sqrtm(x.covariance @ y.covariance).real
    return np.sum((x.mean - y.mean) ** 2) + np.trace(x.covariance + y.covariance - 2 * root)


def test_frechet_distance_equals_closed_form_of_commuting_covariances():
    """In the basis in which both covariances are diagonal, the distance is the sum of (m1 - m2)^2 + (s1 - s2)^2."""
    random = np.random.RandomState(0)
    (m1, m2), (s1, s2) = random.normal(size=(2, 7)), random.uniform(0.1, 2, (2, 7))
    rotation = linalg.qr(random.normal(size=(7, 7)))[0]
    x, y = (Moments(rotation @ m, rotation @ np.diag(s**2) @ rotation.T) for m, s in ((m1, s1), (m2, s2)))
    expected = np.sum((m1 - m2) ** 2 + (s1 - s2) ** 2)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_equals_distance_by_scipys_sqrtm():
    random = np.random.RandomState(1)
    x, y = gaussian(random, 40), gaussian(random, 40)
    assert frechet_distance(x, y) == pytest.approx(distance_by_sqrtm(x, y), rel=1e-8)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert abs(frechet_distance(x, x)) < 1e-6


def test_frechet_distance_is_exact_for_fewer_samples_than_dimensions():
    """Compare with a case worked out by hand: two samples each, whose covariances have rank one."""
    d = 50
    e = np.eye(d)
    x, y = moments(np.stack([e[0], -e[0]])), moments(np.stack([3 * e[0] + e[1], -3 * e[0] + e[1]]))
    # The means differ by 1. The variances along e0 are 2 and 18, and (sqrt 18 - sqrt 2)^2 = 8.
    assert frechet_distance(x, y) == pytest.approx(1 + 8, abs=1e-6)
    assert abs(frechet_distance(x, x)) < 1e-6
    many = moments(np.random.RandomState(2).normal(size=(100, 1000)))
    assert abs(frechet_distance(many, many)) < 1e-6
    assert np.isnan(frechet_distance(x, x._replace(mean=x.mean * np.nan)))
    far = np.random.RandomState(2).normal(size=(10, d))
    assert frechet_distance(moments(far), moments(far[::-1])) == pytest.approx(0, abs=1e-6)


def test_moments_of_batches_equal_those_of_all_examples():
    """The examples are far from zero, where plain sums of squares would lose all digits."""
    x = np.random.RandomState(4).normal(1e6, 1, (1003, 5))
    accumulator = Accumulator(5)
    for part in np.split(x, [1, 100, 700, 1002]):
        accumulator.add(part)
    total = accumulator.moments()
    np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(total.covariance, np.cov(x, rowvar=False), atol=1e-9)


def test_moments_need_little_memory():
    """Ten thousand features of 256 dimensions take 20 MB, but their moments need less than 3 MB."""
    accumulator = Accumulator(256)
    random = np.random.RandomState(9)
    tracemalloc.start()
    for _ in range(100):
        accumulator.add(random.normal(size=(100, 256)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6
