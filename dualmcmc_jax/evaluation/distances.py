"""Distances between sets of samples."""

import numpy as np


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of the Gaussians fitted to x [N, d] and y [M, d], in squared units of x.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), whose last trace is the sum of the square roots of the eigenvalues of
    A^T S2 A, with A A^T = S1.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(s1)
    root = vectors * np.sqrt(np.maximum(values, 0))
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ s2 @ root), 0)).sum()
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s1) + np.trace(s2) - 2 * cross)
