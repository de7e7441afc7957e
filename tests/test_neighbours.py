"""Precision, recall, density and coverage by nearest neighbors, compared with cases worked out by hand."""

import numpy as np
import pytest

from dualmcmc_jax.metrics import neighbours


def test_metrics_equal_those_worked_out_by_hand(monkeypatch):
    """All points lie on a line, and k = 1.

    The real points 0, 1, 10 have radii 1, 1, 9; the fake points 0.5, 5, 30, 31 have radii 4.5, 4.5, 1, 1.

    Of the fake points, 0.5 lies in the balls of 0 and 1, and 5 in the ball of 10 (distance 5); 30 and 31 lie in no ball
    (distances 20 and 21 from 10). Of the real points, 0 lies in the ball of 0.5, and 1 in the balls of 0.5 and 5
    (distance 4); 10 lies in no ball (distance 5 from 5).
    """
    real, fake = np.array([[0.0], [1.0], [10.0]]), np.array([[0.5], [5.0], [30.0], [31.0]])
    expected = {"precision": 2 / 4, "recall": 2 / 3, "density": 3 / 4, "coverage": 3 / 3}
    for chunk in (1000, 2):
        monkeypatch.setattr(neighbours, "CHUNK", chunk)
        assert neighbours.neighbourhoods(real, fake, k=1) == pytest.approx(expected)
    swapped = neighbours.neighbourhoods(fake, real, k=1)
    assert (swapped["precision"], swapped["recall"]) == pytest.approx((expected["recall"], expected["precision"]))
    # The ball of 0.5 contains 0 and 1, the ball of 5 contains 1, and the balls of 30 and 31 contain no real point.
    assert (swapped["density"], swapped["coverage"]) == pytest.approx((3 / 3, 2 / 4))


def test_metrics_of_a_set_with_itself_are_perfect():
    x = np.random.RandomState(6).normal(size=(200, 4))
    metrics = neighbours.neighbourhoods(x, x[::-1], k=5)
    assert (metrics["precision"], metrics["recall"], metrics["coverage"]) == (1, 1, 1)
    assert metrics["density"] == pytest.approx(6 / 5, abs=1e-9)  # every ball contains its center and five others
    apart = neighbours.neighbourhoods(x, x + 100, k=5)
    assert set(apart.values()) == {0}


def test_nearest_examples_are_sorted_by_distance(monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 3)
    train = np.arange(0, 80, 10, dtype=np.float64)[:, None] * np.ones((1, 4))
    x = np.array([[12.0] * 4, [69.0] * 4])
    distance, indices = neighbours.nearest(x, train, num=2, to_vector=lambda x: x)
    np.testing.assert_array_equal(indices, [[1, 2], [7, 6]])
    np.testing.assert_allclose(distance, [[2, 8], [1, 9]])
