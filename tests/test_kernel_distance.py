"""The kernel distance: a case worked out by hand, and its bias."""

import numpy as np
import pytest

from dualmcmc_jax.metrics import kernel_distance as module
from dualmcmc_jax.metrics.kernel_distance import kernel_distance


def test_kernel_distance_equals_a_case_by_hand():
    """In one dimension, x = {0, 1}, y = {1, 3} and k(a, b) = (a b + 1)^3.

    k(0, 1) = 1 within x and k(1, 3) = 64 within y. The mean of k over pairs of x and y is (1 + 1 + 8 + 64) / 4 = 18.5.
    The distance is 1 + 64 - 2 * 18.5 = 28.
    """
    assert kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]])) == pytest.approx(28)


def test_kernel_distance_is_unbiased_and_detects_a_shift(monkeypatch):
    random = np.random.RandomState(5)
    same = [kernel_distance(random.normal(size=(50, 3)), random.normal(size=(60, 3))) for _ in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(200)
    x, y = random.normal(size=(50, 3)), random.normal(1, 1, (60, 3))
    whole = kernel_distance(x, y)
    assert whole > 5 * np.std(same)
    monkeypatch.setattr(module, "CHUNK", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)
