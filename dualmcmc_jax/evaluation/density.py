"""Densities in two dimensions, where the normalising constant is a sum over a grid."""

from collections.abc import Callable

import numpy as np

LogDensity = Callable[[np.ndarray], np.ndarray]


def kl_divergence(log_p: LogDensity, log_f: LogDensity, *, half_width: float, num_points: int = 500) -> float:
    """KL(p, f / Z) in nats by quadrature on the square [-half_width, half_width]^2.

    Args:
      log_p: [N, 2] -> [N], normalised on the square.
      log_f: [N, 2] -> [N], up to a constant.
      half_width: of the square, in units of x.
      num_points: per side; the midpoint rule, exact to rounding for what is smooth on that scale.
    """
    cell = 2 * half_width / num_points
    axis = -half_width + cell * (np.arange(num_points) + 0.5)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    p, f = (np.asarray(log(x), np.float64) for log in (log_p, log_f))
    log_z = np.logaddexp.reduce(f) + 2 * np.log(cell)
    return float(np.sum(np.exp(p) * (p - f + log_z)) * cell**2)
