"""Integrals of densities in two dimensions as sums over a grid, and KL divergences of Gaussians."""

from typing import NamedTuple

import numpy as np


class Grid(NamedTuple):
    """Midpoints x [N, 2] of the cells of a square, and the area of one cell."""

    x: np.ndarray
    area: float


def grid(half_width: float, num_points: int = 500) -> Grid:
    """Divide the square [-half_width, half_width]^2 into num_points^2 cells.

    The midpoint rule is exact to rounding for densities that are smooth on the scale of a cell.
    """
    side = 2 * half_width / num_points
    axis = -half_width + side * (np.arange(num_points) + 0.5)
    return Grid(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2), side**2)


def normalized(log_f: np.ndarray, area: float) -> np.ndarray:
    """Return log f - log Z on the cells of a grid, given log f [N]: [N]."""
    log_f = np.asarray(log_f, np.float64)
    return log_f - np.logaddexp.reduce(log_f) - np.log(area)


def kl_divergence(log_p: np.ndarray, log_q: np.ndarray, area: float) -> float:
    """Return KL(p, q) in nats of normalised log-densities [N] on the cells of a grid."""
    return float(np.sum(np.exp(log_p) * (log_p - log_q)) * area)


def sample(random: np.random.RandomState, cells: Grid, log_p: np.ndarray, num: int) -> np.ndarray:
    """Draw from a normalised log-density [N] on the cells of a grid, uniformly within each cell: [num, 2]."""
    total = np.cumsum(np.exp(log_p))
    index = np.searchsorted(total, total[-1] * random.random_sample(num), side="right")
    return cells.x[index] + np.sqrt(cells.area) * (random.random_sample((num, 2)) - 0.5)


def kl_of_gaussians(p: tuple[np.ndarray, np.ndarray], q: tuple[np.ndarray, np.ndarray]) -> float:
    """Return KL(p, q) of two Gaussians (mean, covariance), in nats."""
    (mean_p, cov_p), (mean_q, cov_q) = p, q
    ratio, off = np.linalg.solve(cov_q, cov_p), mean_q - mean_p
    return 0.5 * (np.trace(ratio) - len(off) - np.linalg.slogdet(ratio)[1] + off @ np.linalg.solve(cov_q, off))
