"""The maximum mean discrepancy of two sets of features, in float64."""

import numpy as np

CHUNK = 1000
"""Rows of a matrix of pairs that are in memory at a time."""


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of x [N, d] and y [M, d] for the kernel (x.y / d + 1)^3.

    In Inception's feature space this distance is the KID (Binkowski et al., 2018). Because it is unbiased, it may fall
    below 0.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, m = len(x), len(y)

    def kernel(product):
        base = product / x.shape[1] + 1
        return base * base * base

    total = lambda a, b: sum(kernel(a[i : i + CHUNK] @ b.T).sum() for i in range(0, len(a), CHUNK))
    within = lambda a: total(a, a) - kernel(np.sum(a**2, axis=1)).sum()
    return float(within(x) / (n * (n - 1)) + within(y) / (m * (m - 1)) - 2 * total(x, y) / (n * m))
