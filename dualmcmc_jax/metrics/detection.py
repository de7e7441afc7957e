"""How well a score separates data from other examples: AUROC, FPR95 and AUPR, with bootstrap intervals.

Scores are oriented so that higher values mean other examples.
"""

from typing import NamedTuple

import numpy as np

CHUNK = 50
"""Number of resamples that are computed at once."""


class Rates(NamedTuple):
    """Rates of one score for data and another set, or arrays of such rates.

    Attributes:
      auroc: probability that an example of the other set has a higher score than an example of the data; ties count one
        half. 0.5 is chance, 1 is perfect separation.
      fpr95: share of the other set whose scores are at most the lowest threshold that keeps 95% of the data. 0.95 is
        chance, 0 is perfect separation.
      aupr: average precision of the search for examples of the other set by high scores. The share of the other set
        among all examples is chance, 1 is perfect separation.
    """

    auroc: np.ndarray
    fpr95: np.ndarray
    aupr: np.ndarray


def rates(data: np.ndarray, other: np.ndarray) -> Rates:
    """Return the rates of a score.

    Args:
      data: [N], scores of the data.
      other: [M], scores of the other set.

    Returns:
      Three numbers, or NaN if any score is not finite.
    """
    if not np.isfinite([data.sum(), other.sum()]).all():
        return Rates(*3 * [float("nan")])
    groups, num_groups = _groups(data, other)
    return Rates(*map(float, _rates(*(np.bincount(group, minlength=num_groups) for group in groups))))


def intervals(data: np.ndarray, other: np.ndarray, *, seed: int = 0, num_resamples: int = 1000) -> Rates:
    """Return 95% intervals of the rates by the bootstrap: both sets are resampled with replacement.

    Args:
      data: [N], scores of the data.
      other: [M], scores of the other set.
      seed: seed of the resamples.
      num_resamples: number of resamples.

    Returns:
      The ends [2] of each interval, or NaN if any score is not finite.
    """
    if not np.isfinite([data.sum(), other.sum()]).all():
        return Rates(*3 * [np.full(2, np.nan)])
    random, (groups, num_groups) = np.random.RandomState(seed), _groups(data, other)

    def resample(group, size):
        drawn = group[random.randint(len(group), size=(size, len(group)))] + num_groups * np.arange(size)[:, None]
        return np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)

    parts = []
    for start in range(0, num_resamples, CHUNK):
        size = min(CHUNK, num_resamples - start)
        parts.append(_rates(*(resample(group, size) for group in groups)))
    return Rates(*(np.percentile(np.concatenate(values), (2.5, 97.5)) for values in zip(*parts, strict=True)))


def _groups(data: np.ndarray, other: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Return the rank of each score among the distinct scores of both sets, [N] and [M], and how many there are."""
    distinct, index = np.unique(np.concatenate([data, other]), return_inverse=True)
    return np.split(index, [len(data)]), len(distinct)


def _rates(data: np.ndarray, other: np.ndarray) -> Rates:
    """Return the rates [...] of counts [..., G] of distinct scores, from the lowest to the highest."""
    num_data, num_other = data.sum(-1), other.sum(-1)
    data_up_to, other_up_to = data.cumsum(-1), other.cumsum(-1)
    auroc = (other * (data_up_to - data / 2)).sum(-1) / (num_data * num_other)
    threshold = (100 * data_up_to >= 95 * num_data[..., None]).argmax(-1)[..., None]
    fpr95 = np.take_along_axis(other_up_to, threshold, -1)[..., 0] / num_other
    data_from = num_data[..., None] - data_up_to + data  # examples with this score or a higher one
    other_from = num_other[..., None] - other_up_to + other
    precision = other_from / np.maximum(data_from + other_from, 1)
    return Rates(auroc, fpr95, (other * precision).sum(-1) / num_other)
