"""The kernel distance (squared maximum mean discrepancy) between two sets of features, in float64."""

import numpy as np

CHUNK = 1000
"""Number of rows of the kernel matrix in memory at a time."""


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy with the kernel k(a, b) = (a.b / d + 1)^3.

    The squared discrepancy is E k(x, x') + E k(y, y') - 2 E k(x, y) (Gretton et al., 2012). Lower is better. The
    estimate is unbiased and can therefore be slightly negative. With Inception's features the distance is the KID
    (Binkowski et al., 2018).

    Args:
      x: [N, d], features of one set.
      y: [M, d], features of the other set.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, m = len(x), len(y)

    def kernel(product):
        base = product / x.shape[1] + 1
        return base * base * base

    total = lambda a, b: sum(kernel(a[i : i + CHUNK] @ b.T).sum() for i in range(0, len(a), CHUNK))
    within = lambda a: total(a, a) - kernel(np.sum(a**2, axis=1)).sum()
    return float(within(x) / (n * (n - 1)) + within(y) / (m * (m - 1)) - 2 * total(x, y) / (n * m))
