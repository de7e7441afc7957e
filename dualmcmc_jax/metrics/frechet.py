"""The Frechet distance between two sets of features, in float64."""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean [d] and unbiased covariance [d, d] of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


class Accumulator:
    """Accumulator of the moments of features that arrive in batches. It stores one [d, d] matrix.

    Args:
      num_features: number of features, d.
    """

    def __init__(self, num_features: int):
        self.count = 0
        self._origin = None  # mean of the first batch; subtracted from all features to avoid cancellation
        self._sum = np.zeros(num_features)
        self._products = np.zeros((num_features, num_features))

    def add(self, features: np.ndarray) -> None:
        """Add a batch of features [B, d]."""
        x = np.asarray(features, np.float64)
        if self._origin is None:
            self._origin = x.mean(0)
        x = x - self._origin
        self.count += len(x)
        self._sum += x.sum(0)
        self._products += x.T @ x

    def moments(self) -> Moments:
        """Return the moments of all features added so far, which must be at least two."""
        mean = self._sum / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Moments(self._origin + mean, covariance)


def moments(features: np.ndarray) -> Moments:
    """Return the moments of features [N, d]."""
    accumulator = Accumulator(features.shape[1])
    accumulator.add(features)
    return accumulator.moments()


def frechet_distance(x: Moments, y: Moments) -> float:
    """Return the Frechet distance between two Gaussians with the given moments (Dowson & Landau, 1982).

    The distance is

        |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)),

    in squared units of the features. Lower is better, and 0 means equal moments. With Inception's features the distance
    is the FID (Heusel et al., 2017).

    tr (S1 S2)^(1/2) is computed as the sum of the square roots of the eigenvalues of A^T S2 A, where A A^T = S1.
    Eigenvalues below the rounding error are set to 0. With fewer samples than dimensions there are many of these
    eigenvalues, and the sum of their square roots would not be negligible.

    Returns:
      The distance, or NaN if a moment is not finite.
    """
    if not all(np.isfinite(part).all() for part in (*x, *y)):
        return float("nan")
    clean = lambda values: np.where(values > len(values) * np.finfo(float).eps * values.max(), values, 0)
    values, vectors = np.linalg.eigh(x.covariance)
    root = vectors * np.sqrt(clean(values))
    cross = np.sqrt(clean(np.linalg.eigvalsh(root.T @ y.covariance @ root))).sum()
    return float(np.sum((x.mean - y.mean) ** 2) + np.trace(x.covariance) + np.trace(y.covariance) - 2 * cross)
