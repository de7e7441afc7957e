"""The Frechet distance of two sets of features, in float64."""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean [d] and unbiased covariance [d, d] of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


class Accumulator:
    """Moments of features that arrive a batch at a time. An accumulator holds one [d, d] matrix."""

    def __init__(self, num_features: int):
        self.count = 0
        self._origin = None  # sums are of differences from the first batch's mean, which keeps their digits
        self._sum = np.zeros(num_features)
        self._products = np.zeros((num_features, num_features))

    def add(self, features: np.ndarray) -> None:
        """Add features [B, d]."""
        x = np.asarray(features, np.float64)
        if self._origin is None:
            self._origin = x.mean(0)
        x = x - self._origin
        self.count += len(x)
        self._sum += x.sum(0)
        self._products += x.T @ x

    def moments(self) -> Moments:
        """Return the moments of all features that were added, of which there must be two or more."""
        mean = self._sum / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Moments(self._origin + mean, covariance)


def moments(features: np.ndarray) -> Moments:
    """Return the moments of features [N, d]."""
    accumulator = Accumulator(features.shape[1])
    accumulator.add(features)
    return accumulator.moments()


def frechet_distance(x: Moments, y: Moments) -> float:
    """Return the Frechet distance of two Gaussians, in squared units of the features (Dowson & Landau, 1982).

    The distance is |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). The last trace is the sum of the square roots of the
    eigenvalues of A^T S2 A, with A A^T = S1. Eigenvalues that are rounding errors count as 0: few samples in many
    dimensions have many of them, and their square roots would add up.

    Returns:
      The distance; NaN if a moment is NaN.
    """
    if not all(np.isfinite(part).all() for part in (*x, *y)):
        return float("nan")
    sound = lambda values: np.where(values > len(values) * np.finfo(float).eps * values.max(), values, 0)
    values, vectors = np.linalg.eigh(x.covariance)
    root = vectors * np.sqrt(sound(values))
    cross = np.sqrt(sound(np.linalg.eigvalsh(root.T @ y.covariance @ root))).sum()
    return float(np.sum((x.mean - y.mean) ** 2) + np.trace(x.covariance) + np.trace(y.covariance) - 2 * cross)
