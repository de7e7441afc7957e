"""Integrals of two-dimensional densities as sums over a grid, and KL divergences between Gaussians."""

from typing import NamedTuple

import numpy as np


class Grid(NamedTuple):
    """A grid of cells that cover a square.

    Attributes:
      x: [N, 2], midpoints of the cells.
      area: area of one cell.
    """

    x: np.ndarray
    area: float


def grid(half_width: float, num_points: int = 500) -> Grid:
    """Divide the square [-half_width, half_width]^2 into num_points^2 square cells.

    The sum of a density over the midpoints, times the area of a cell, equals its integral up to rounding if the density
    is smooth on the scale of a cell and negligible at the border of the square.

    Args:
      half_width: half the side of the square.
      num_points: number of cells along each side.
    """
    side = 2 * half_width / num_points
    axis = -half_width + side * (np.arange(num_points) + 0.5)
    return Grid(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2), side**2)


def normalized(log_f: np.ndarray, area: float) -> np.ndarray:
    """Normalize a log-density on a grid: return log f - log Z.

    Args:
      log_f: [N], unnormalized log-density at the midpoints, in nats.
      area: area of one cell.

    Returns:
      The normalized log-density [N] in float64.
    """
    log_f = np.asarray(log_f, np.float64)
    return log_f - np.logaddexp.reduce(log_f) - np.log(area)


def kl_divergence(log_p: np.ndarray, log_q: np.ndarray, area: float) -> float:
    """Return the KL divergence KL(p, q), the integral of p (log p - log q), in nats.

    Args:
      log_p: [N], normalized log-density at the midpoints, in nats.
      log_q: [N], likewise.
      area: area of one cell.
    """
    return float(np.sum(np.exp(log_p) * (log_p - log_q)) * area)


def sample(random: np.random.RandomState, cells: Grid, log_p: np.ndarray, num: int) -> np.ndarray:
    """Draw points from a density on a grid. Within a cell the points are uniform.

    Args:
      random: NumPy's random state.
      cells: the grid.
      log_p: [N], normalized log-density at the midpoints, in nats.
      num: number of points.

    Returns:
      The points [num, 2].
    """
    total = np.cumsum(np.exp(log_p))
    index = np.searchsorted(total, total[-1] * random.random_sample(num), side="right")
    return cells.x[index] + np.sqrt(cells.area) * (random.random_sample((num, 2)) - 0.5)


def kl_of_gaussians(p: tuple[np.ndarray, np.ndarray], q: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the KL divergence KL(p, q) in nats between Gaussians, each given as (mean [D], covariance [D, D])."""
    (mean_p, cov_p), (mean_q, cov_q) = p, q
    ratio, diff = np.linalg.solve(cov_q, cov_p), mean_q - mean_p
    return 0.5 * (np.trace(ratio) - len(diff) - np.linalg.slogdet(ratio)[1] + diff @ np.linalg.solve(cov_q, diff))
