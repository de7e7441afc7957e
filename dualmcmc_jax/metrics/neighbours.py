"""Nearest neighbours between two sets: precision, recall, density, coverage, and memorised examples."""

from collections.abc import Callable

import numpy as np

CHUNK = 1000
"""Rows of a matrix of distances that are in memory at a time."""


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances [N, M] of x [N, d] and y [M, d], at least 0."""
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1)[None]
    return np.maximum(squares - 2 * (x @ y.T), 0)


def neighbourhoods(real: np.ndarray, fake: np.ndarray, *, k: int = 5) -> dict[str, float]:
    """Measure how two sets of features cover each other.

    Each example has a ball that reaches to the k-th nearest other example of its own set.

    Args:
      real: [N, d], features of data.
      fake: [M, d], features of samples.
      k: the neighbour to which a ball reaches.

    Returns:
      precision: the share of fake examples inside a ball of real, and recall: the share of real examples inside a ball
      of fake (Kynkaanniemi et al., 2019). density: the mean number of real balls that hold a fake example, divided by
      k, and coverage: the share of real balls that hold a fake example (Naeem et al., 2020).
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
    """Return the squared distance of each of x [N, d] to its k-th nearest other: [N]."""
    if len(x) <= k:
        raise ValueError(f"evaluation.num_neighbours: found {len(x)} samples to compare, expected more than k = {k}")
    chunks = (squared_distances(x[i : i + CHUNK], x) for i in range(0, len(x), CHUNK))
    return np.concatenate([np.partition(distance, k, axis=1)[:, k] for distance in chunks])


def nearest(x: np.ndarray, train: np.ndarray, *, num: int = 1, to_vector: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest training examples of each of x [N, ...], by root mean square difference.

    Args:
      x: [N, ...], examples.
      train: [M, ...], all training examples, perhaps memory-mapped. They are read a chunk at a time.
      num: number of neighbours of each example.
      to_vector: examples [B, ...] -> [B, d] floats, in the units of the distances.

    Returns:
      Distances and indices into train, both [N, num], nearest first.
    """
    vectors = to_vector(x)
    best = np.full((len(x), num), np.inf)
    place = np.zeros((len(x), num), int)
    for i in range(0, len(train), CHUNK):
        distance = squared_distances(vectors, to_vector(train[i : i + CHUNK])) / vectors.shape[1]
        few = np.argpartition(distance, min(num, distance.shape[1]) - 1, axis=1)[:, :num]
        best = np.concatenate([best, np.take_along_axis(distance, few, 1)], axis=1)
        place = np.concatenate([place, i + few], axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :num]
        best, place = np.take_along_axis(best, order, 1), np.take_along_axis(place, order, 1)
    return np.sqrt(best), place
