"""Data sets by name, as arrays."""

from typing import NamedTuple

import numpy as np

from dualmcmc_jax.data import toy2d


class Dataset(NamedTuple):
    """train and test examples: uint8 images [N, H, W, C], or float32 vectors [N, d]."""

    train: np.ndarray
    test: np.ndarray


def load(source: str, shape: tuple[int, ...]) -> Dataset:
    """The data set named by `data.source`, of examples shaped `data.shape`.

    Raises:
      ValueError: no such source, or its examples have another shape.
    """
    if source not in _SOURCES:
        raise ValueError(f"data.source: found {source!r}, expected one of {', '.join(map(repr, _SOURCES))}")
    dataset = _SOURCES[source]()
    if dataset.train.shape[1:] != tuple(shape):
        raise ValueError(f"data.shape: found {tuple(shape)}, expected {dataset.train.shape[1:]} for {source!r}")
    return dataset


def _digits() -> Dataset:
    """scikit-learn's 1,797 scans of handwritten digits, 8 x 8 in 17 grays: 1,500 to train, 297 to test."""
    from sklearn.datasets import load_digits

    order = np.random.RandomState(0).permutation(1797)
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[order, :, :, None]
    return Dataset(images[:1500], images[1500:])


def _eight_gaussians() -> Dataset:
    random = np.random.RandomState(0)
    return Dataset(toy2d.sample(random, 100_000), toy2d.sample(random, 10_000))


_SOURCES = {"digits": _digits, "toy2d:8gaussians": _eight_gaussians}
