"""Metrics from nearest neighbors between two sets: precision, recall, density, coverage, and nearest examples."""

from collections.abc import Callable

import numpy as np

CHUNK = 1000
"""Number of rows of a distance matrix in memory at a time."""


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances [N, M] between x [N, d] and y [M, d], without negative rounding errors."""
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1)[None]
    return np.maximum(squares - 2 * (x @ y.T), 0)


def neighbourhoods(real: np.ndarray, fake: np.ndarray, *, k: int = 5) -> dict[str, float]:
    """Compute precision, recall, density and coverage of samples, by k-nearest-neighbor balls.

    The ball of an example is centered at the example and reaches to its k-th nearest neighbor within its own set.
    Higher is better for all four metrics.

    Args:
      real: [N, d], features of data.
      fake: [M, d], features of samples.
      k: number of the neighbor to which a ball reaches.

    Returns:
      - "precision": fraction of samples that lie in the ball of at least one real example (Kynkaanniemi et al., 2019).
      - "recall": fraction of real examples that lie in the ball of at least one sample (Kynkaanniemi et al., 2019).
      - "density": mean number of balls of real examples that contain a sample, divided by k (Naeem et al., 2020). It
        can exceed 1.
      - "coverage": fraction of real examples whose ball contains at least one sample (Naeem et al., 2020).

    Raises:
      ValueError: a set has at most k examples.
    """
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    real_radius, fake_radius = _radii(real, k), _radii(fake, k)
    recalled, covered, inside = [], [], np.zeros(len(fake))
    for i in range(0, len(real), CHUNK):
        distance = squared_distances(real[i : i + CHUNK], fake)
        in_real = distance <= real_radius[i : i + CHUNK, None]
        inside += in_real.sum(0)
        covered.append(in_real.any(1))
        recalled.append((distance <= fake_radius).any(1))
    return {
        "precision": float(np.mean(inside > 0)),
        "recall": float(np.mean(np.concatenate(recalled))),
        "density": float(np.mean(inside) / k),
        "coverage": float(np.mean(np.concatenate(covered))),
    }


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distance [N] of each example of x [N, d] to its k-th nearest neighbor."""
    if len(x) <= k:
        raise ValueError(f"evaluation.num_neighbours: found {len(x)} samples to compare, expected more than k = {k}")
    chunks = (squared_distances(x[i : i + CHUNK], x) for i in range(0, len(x), CHUNK))
    return np.concatenate([np.partition(distance, k, axis=1)[:, k] for distance in chunks])


def nearest(x: np.ndarray, train: np.ndarray, *, num: int = 1, to_vector: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest training examples of each example, by root mean square difference.

    Args:
      x: [N, ...], examples.
      train: [M, ...], all training examples, which may be memory-mapped. They are read in chunks.
      num: number of neighbors of each example.
      to_vector: a function from examples [B, ...] to floats [B, d], in whose units the distances are returned.

    Returns:
      Root mean square differences over the d coordinates, and indices into train: [N, num] each, nearest first.
    """
    vectors = to_vector(x)
    nearest_squares = np.full((len(x), num), np.inf)
    indices = np.zeros((len(x), num), int)
    for i in range(0, len(train), CHUNK):
        distance = squared_distances(vectors, to_vector(train[i : i + CHUNK])) / vectors.shape[1]
        candidates = np.argpartition(distance, min(num, distance.shape[1]) - 1, axis=1)[:, :num]
        nearest_squares = np.concatenate([nearest_squares, np.take_along_axis(distance, candidates, 1)], axis=1)
        indices = np.concatenate([indices, i + candidates], axis=1)
        order = np.argsort(nearest_squares, axis=1, kind="stable")[:, :num]
        nearest_squares = np.take_along_axis(nearest_squares, order, 1)
        indices = np.take_along_axis(indices, order, 1)
    return np.sqrt(nearest_squares), indices
