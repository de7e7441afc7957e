"""What nearest neighbours tell of two sets: precision, recall, density, coverage, and memorised examples."""

from collections.abc import Callable

import numpy as np

CHUNK = 1000
"""Rows of a matrix of distances that are in memory at a time."""


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances [N, M] of x [N, d] and y [M, d], not below 0."""
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1)[None]
    return np.maximum(squares - 2 * (x @ y.T), 0)


def neighbourhoods(real: np.ndarray, fake: np.ndarray, *, k: int = 5) -> dict[str, float]:
    """How two sets of features, [N, d] and [M, d], cover each other by balls to the k-th nearest of their own set.

    precision: share of fake inside a ball of real; recall: share of real inside a ball of fake (Kynkaanniemi et al.,
    2019). density: mean number of real balls that a fake is in, over k; coverage: share of real with a fake in its ball
    (Naeem et al., 2020).
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
    """Squared distance of each of x [N, d] to its k-th nearest other: [N]."""
    if len(x) <= k:
        raise ValueError(f"evaluation.num_neighbours: found {len(x)} samples to compare, expected more than k = {k}")
    chunks = (squared_distances(x[i : i + CHUNK], x) for i in range(0, len(x), CHUNK))
    return np.concatenate([np.partition(distance, k, axis=1)[:, k] for distance in chunks])


def nearest(x: np.ndarray, train: np.ndarray, *, num: int = 1, to_vector: Callable) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training examples of each of x [N, ...], nearest first, by root mean square difference.

    Args:
      x: examples.
      train: all the training examples, perhaps memory-mapped, read a chunk at a time.
      num: how many to find.
      to_vector: examples [B, ...] to [B, d] floats, in the units of the answer.

    Returns:
      Their distances and their places in train, both [N, num].
    """
    vectors = to_vector(x)
    best = np.full((len(x), num), np.inf)
    place = np.zeros((len(x), num), int)
    for i in range(0, len(train), CHUNK):
        found = squared_distances(vectors, to_vector(train[i : i + CHUNK])) / vectors.shape[1]
        few = np.argpartition(found, min(num, found.shape[1]) - 1, axis=1)[:, :num]
        best = np.concatenate([best, np.take_along_axis(found, few, 1)], axis=1)
        place = np.concatenate([place, i + few], axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :num]
        best, place = np.take_along_axis(best, order, 1), np.take_along_axis(place, order, 1)
    return np.sqrt(best), place
