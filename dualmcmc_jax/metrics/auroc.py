"""The area under the ROC curve (AUROC) of the energy as a score that separates two sets."""

import numpy as np


def auroc(data: np.ndarray, other: np.ndarray) -> float:
    """Return the AUROC of the energy.

    The AUROC is the probability that a random example of the data has a lower energy than a random example of the other
    set. Ties count one half. A value of 0.5 is chance, and 1 is perfect separation.

    Args:
      data: [N], energies of examples of the data.
      other: [M], energies of examples of the other set.

    Returns:
      The AUROC between 0 and 1, or NaN if any energy is not finite.
    """
    from sklearn.metrics import roc_auc_score  # imported late: it takes a second, and training does not need it

    if not np.isfinite([data.sum(), other.sum()]).all():
        return float("nan")
    labels = np.repeat([1, 0], [len(data), len(other)])
    return float(roc_auc_score(labels, -np.concatenate([data, other])))
