"""Distances between sets of samples in a feature space, and the Inception Score. All in float64."""

from typing import NamedTuple

import numpy as np

CHUNK = 1000
"""Rows of a matrix of pairs that are in memory at a time."""


class Moments(NamedTuple):
    """Mean [d] and covariance [d, d], unbiased, of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


class Accumulator:
    """Moments of features that come a batch at a time; it holds one [d, d] matrix."""

    def __init__(self, num_features: int):
        self.count = 0
        self._origin = None  # sums are of differences from the first batch's mean, which keeps their digits
        self._sum = np.zeros(num_features)
        self._products = np.zeros((num_features, num_features))

    def add(self, features: np.ndarray) -> None:
        """Features [B, d]."""
        x = np.asarray(features, np.float64)
        if self._origin is None:
            self._origin = x.mean(0)
        x = x - self._origin
        self.count += len(x)
        self._sum += x.sum(0)
        self._products += x.T @ x

    def moments(self) -> Moments:
        """Of all that was added, two rows or more."""
        mean = self._sum / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Moments(self._origin + mean, covariance)


def moments(features: np.ndarray) -> Moments:
    """Moments of features [N, d]."""
    accumulator = Accumulator(features.shape[1])
    accumulator.add(features)
    return accumulator.moments()


def frechet(x: Moments, y: Moments) -> float:
    """Frechet distance of two Gaussians, in squared units of the features (Dowson & Landau, 1982).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), whose last trace is the sum of the square roots of the eigenvalues of
    A^T S2 A, with A A^T = S1. Eigenvalues that are rounding errors count as 0: of few samples in many dimensions there
    are many, and their square roots would add up. NaN if a moment is.
    """
    if not all(np.isfinite(part).all() for part in (*x, *y)):
        return float("nan")
    sound = lambda values: np.where(values > len(values) * np.finfo(float).eps * values.max(), values, 0)
    values, vectors = np.linalg.eigh(x.covariance)
    root = vectors * np.sqrt(sound(values))
    cross = np.sqrt(sound(np.linalg.eigvalsh(root.T @ y.covariance @ root))).sum()
    return float(np.sum((x.mean - y.mean) ** 2) + np.trace(x.covariance) + np.trace(y.covariance) - 2 * cross)


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of x [N, d] and y [M, d] for the kernel (x.y / d + 1)^3.

    In Inception's feature space this is the KID (Binkowski et al., 2018); without bias, it may fall below 0.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, m = len(x), len(y)

    def kernel(product):
        base = product / x.shape[1] + 1
        return base * base * base

    total = lambda a, b: sum(kernel(a[i : i + CHUNK] @ b.T).sum() for i in range(0, len(a), CHUNK))
    within = lambda a: total(a, a) - kernel(np.sum(a**2, axis=1)).sum()
    return float(within(x) / (n * (n - 1)) + within(y) / (m * (m - 1)) - 2 * total(x, y) / (n * m))


class InceptionScore:
    """exp(E KL(p(y | x), p(y))) over parts of num_samples images (Salimans et al., 2016), a batch at a time."""

    def __init__(self, num_samples: int, num_classes: int, splits: int = 10):
        splits = min(splits, num_samples)
        self._part = np.arange(num_samples) * splits // num_samples
        self._done = 0
        self._probability = np.zeros((splits, num_classes))
        self._negentropy = np.zeros(splits)

    def add(self, logits: np.ndarray) -> None:
        """Logits [B, classes] of the next images."""
        x = np.asarray(logits, np.float64)
        log_p = x - np.logaddexp.reduce(x, axis=1, keepdims=True)
        part = self._part[self._done : self._done + len(x)]
        np.add.at(self._probability, part, np.exp(log_p))
        np.add.at(self._negentropy, part, np.sum(np.exp(log_p) * log_p, axis=1))
        self._done += len(x)

    def score(self) -> tuple[float, float]:
        """Mean and standard deviation over the parts; between 1 and the number of classes."""
        size = np.bincount(self._part)
        p = self._probability / size[:, None]
        marginal = np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)
        scores = np.exp(self._negentropy / size - marginal)
        return float(scores.mean()), float(scores.std())
