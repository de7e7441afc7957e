"""The Inception Score at its bounds, and compared with its definition."""

import numpy as np
import pytest

from dualmcmc_jax.metrics.inception_score import InceptionScore


def test_inception_score_equals_its_bounds_and_its_definition():
    """The score is 1 for equal images. It is the number of classes if all classes occur and each is certain."""

    def score(logits, sizes):
        scores = InceptionScore(len(logits), logits.shape[1], splits=3)
        for part in np.split(logits, np.cumsum(sizes)):
            scores.add(part)
        return scores.score()

    equal = np.tile(np.random.RandomState(7).normal(size=12), (36, 1))
    assert score(equal, [10, 7]) == pytest.approx((1, 0), abs=1e-9)
    certain = 1e3 * np.eye(12)[np.arange(36) % 12]
    assert score(certain, [1, 30]) == pytest.approx((12, 0), abs=1e-9)
    random = np.random.RandomState(8).normal(size=(36, 12))
    parts = []
    for third in np.split(random, 3):
        p = np.exp(third) / np.exp(third).sum(1, keepdims=True)
        parts.append(np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(0))), axis=1))))
    assert score(random, [5, 5, 20]) == pytest.approx((np.mean(parts), np.std(parts)), rel=1e-12)
