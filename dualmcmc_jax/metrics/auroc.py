"""The area under the ROC curve of an energy that tells two sets apart."""

import numpy as np
from sklearn.metrics import roc_auc_score


def auroc(data: np.ndarray, other: np.ndarray) -> float:
    """Return the probability that an example of the data has a lower energy than an example of another set.

    Args:
      data: [N], energies of the data.
      other: [M], energies of the other set.

    Returns:
      The probability, in which ties count half; NaN if an energy is not finite.
    """
    if not np.isfinite([data.sum(), other.sum()]).all():
        return float("nan")
    labels = np.repeat([1, 0], [len(data), len(other)])
    return float(roc_auc_score(labels, -np.concatenate([data, other])))
