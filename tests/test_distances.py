"""Distances against closed forms, published definitions on cases done by hand, and scipy."""

import time
import tracemalloc

import numpy as np
import pytest
from scipy import linalg

from dualmcmc_jax.metrics import neighbours
from dualmcmc_jax.metrics.frechet import Accumulator, InceptionScore, Moments, frechet, kernel_distance, moments


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
    assert frechet(x, y) == pytest.approx(expected, rel=1e-12)


def test_frechet_is_scipys():
    random = np.random.RandomState(1)
    x, y = gaussian(random, 40), gaussian(random, 40)
    assert frechet(x, y) == pytest.approx(by_sqrtm(x, y), rel=1e-8)
    assert frechet(y, x) == pytest.approx(frechet(x, y), rel=1e-10)
    assert abs(frechet(x, x)) < 1e-6


def test_frechet_of_fewer_samples_than_dimensions():
    """Of two samples each, whose covariances have rank one, by hand."""
    d = 50
    e = np.eye(d)
    x, y = moments(np.stack([e[0], -e[0]])), moments(np.stack([3 * e[0] + e[1], -3 * e[0] + e[1]]))
    # means differ by 1; variances along e0 are 2 and 18: (sqrt 18 - sqrt 2)^2 = 8
    assert frechet(x, y) == pytest.approx(1 + 8, abs=1e-6)
    assert abs(frechet(x, x)) < 1e-6
    many = moments(np.random.RandomState(2).normal(size=(100, 1000)))
    assert abs(frechet(many, many)) < 1e-6
    assert np.isnan(frechet(x, x._replace(mean=x.mean * np.nan)))
    far = np.random.RandomState(2).normal(size=(10, d))
    assert frechet(moments(far), moments(far[::-1])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [1024, pytest.param(2048, marks=pytest.mark.more)])
def test_frechet_is_faster_than_sqrtm(size):
    """In the same process; the fastest of three, sqrtm once because it is slow."""
    random = np.random.RandomState(3)
    x, y = gaussian(random, size), gaussian(random, size)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ours = frechet(x, y)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    theirs = by_sqrtm(x, y)
    ratio = min(seconds) / (time.perf_counter() - start)
    print(f"\nFrechet distance at {size} dimensions: {ratio:.2f} of the time with sqrtm")
    assert ours == pytest.approx(theirs, rel=1e-8)
    assert ratio <= 0.4


def test_moments_come_a_batch_at_a_time():
    """Also far from zero, where sums of squares would lose the digits."""
    x = np.random.RandomState(4).normal(1e6, 1, (1003, 5))
    accumulator = Accumulator(5)
    for part in np.split(x, [1, 100, 700, 1002]):
        accumulator.add(part)
    found = accumulator.moments()
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), atol=1e-9)


def test_kernel_distance_by_hand():
    """x = {0, 1}, y = {1, 3} in one dimension: k(a, b) = (a b + 1)^3.

    k(0, 1) = 1; k(1, 3) = 64; mean over x and y of k: (1 + 1 + 8 + 64) / 4 = 18.5; 1 + 64 - 2 * 18.5 = 28.
    """
    assert kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]])) == pytest.approx(28)


def test_kernel_distance_is_unbiased_and_sees_a_shift(monkeypatch):
    random = np.random.RandomState(5)
    same = [kernel_distance(random.normal(size=(50, 3)), random.normal(size=(60, 3))) for _ in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(200)
    x, y = random.normal(size=(50, 3)), random.normal(1, 1, (60, 3))
    whole = kernel_distance(x, y)
    assert whole > 5 * np.std(same)
    monkeypatch.setattr(frechet, "CHUNK", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)


def test_neighbourhoods_by_hand(monkeypatch):
    """On a line, k = 1. Real 0, 1, 10 have radii 1, 1, 9; fake 0.5, 5, 30, 31 have radii 4.5, 4.5, 1, 1.

    Fake in real balls: 0.5 in those of 0 and 1, 5 in that of 10 (distance 5), 30 and 31 in none (20 and 21 from 10).
    Real in fake balls: 0 and 1 in that of 0.5 (and 1 in that of 5, distance 4); 10 in none (5 from 5).
    """
    real, fake = np.array([[0.0], [1.0], [10.0]]), np.array([[0.5], [5.0], [30.0], [31.0]])
    expected = {"precision": 2 / 4, "recall": 2 / 3, "density": 3 / 4, "coverage": 3 / 3}
    for chunk in (1000, 2):
        monkeypatch.setattr(neighbours, "CHUNK", chunk)
        assert neighbours.neighbourhoods(real, fake, k=1) == pytest.approx(expected)
    swapped = neighbours.neighbourhoods(fake, real, k=1)
    assert (swapped["precision"], swapped["recall"]) == pytest.approx((expected["recall"], expected["precision"]))
    # balls of fake hold real: 0.5 holds 0, 1; 5 holds 1; 30 and 31 hold none
    assert (swapped["density"], swapped["coverage"]) == pytest.approx((3 / 3, 2 / 4))


def test_neighbourhoods_of_a_set_with_itself():
    x = np.random.RandomState(6).normal(size=(200, 4))
    found = neighbours.neighbourhoods(x, x[::-1], k=5)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["density"] == pytest.approx(6 / 5, abs=1e-9)  # every ball holds its centre and five others
    apart = neighbours.neighbourhoods(x, x + 100, k=5)
    assert set(apart.values()) == {0}


def test_nearest(monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 3)
    train = np.arange(0, 80, 10, dtype=np.float64)[:, None] * np.ones((1, 4))
    x = np.array([[12.0] * 4, [69.0] * 4])
    distance, place = neighbours.nearest(x, train, num=2, to_vector=lambda x: x)
    np.testing.assert_array_equal(place, [[1, 2], [7, 6]])
    np.testing.assert_allclose(distance, [[2, 8], [1, 9]])


def test_inception_score_bounds():
    """1 if every image looks alike, the number of classes if each is sure and all are there, in any batches."""

    def score(logits, sizes):
        found = InceptionScore(len(logits), logits.shape[1], splits=3)
        for part in np.split(logits, np.cumsum(sizes)):
            found.add(part)
        return found.score()

    alike = np.tile(np.random.RandomState(7).normal(size=12), (36, 1))
    assert score(alike, [10, 7]) == pytest.approx((1, 0), abs=1e-9)
    sure = 1e3 * np.eye(12)[np.arange(36) % 12]
    assert score(sure, [1, 30]) == pytest.approx((12, 0), abs=1e-9)
    random = np.random.RandomState(8).normal(size=(36, 12))
    parts = []
    for third in np.split(random, 3):
        p = np.exp(third) / np.exp(third).sum(1, keepdims=True)
        parts.append(np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(0))), axis=1))))
    assert score(random, [5, 5, 20]) == pytest.approx((np.mean(parts), np.std(parts)), rel=1e-12)


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
