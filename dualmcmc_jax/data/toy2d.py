"""Two-dimensional toy densities: points, curves and squares, blurred by Gaussian noise."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, logsumexp

_Place = Callable[[np.ndarray, np.ndarray], np.ndarray]
_ROWS = 4096
"""Number of points whose densities are computed at a time, to bound the memory."""


class Density(NamedTuple):
    """A ground-truth density in two dimensions.

    It is a mixture of equally likely components. Each component is a point, curve, square or set of points convolved
    with N(0, std^2 I).

    Attributes:
      num_components: number of components (modes, arcs, arms or squares).
      std: standard deviation of the noise, in units of x.
      half_width: half the side of the square around 0 in which quadrature is done, in units of x. Outside the square,
        the density is below exp(-40).
      place: (component [N], u [N, 2] uniform in [0, 1]) -> points [N, 2] without noise.
      log_components: x [N, 2] -> [N, num_components], the log-density of each component in nats.
    """

    num_components: int
    std: float
    half_width: float
    place: _Place
    log_components: Callable[[np.ndarray], np.ndarray]

    def sample(self, random: np.random.RandomState, num: int) -> np.ndarray:
        """Draw `num` points: [num, 2] float32."""
        component, u = random.randint(self.num_components, size=num), random.random_sample((num, 2))
        return (self.place(component, u) + self.std * random.standard_normal((num, 2))).astype(np.float32)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Return the log-density in nats, exact or with a quadrature error below 1e-6: [..., 2] -> [...]."""
        log_p = logsumexp(self.components(x.reshape(-1, 2)), axis=-1) - np.log(self.num_components)
        return log_p.reshape(x.shape[:-1])

    def components(self, x: np.ndarray) -> np.ndarray:
        """Return `log_components` of any number of points, computed in parts: [N, 2] -> [N, num_components]."""
        x = np.asarray(x, np.float64)
        return np.concatenate([self.log_components(x[i : i + _ROWS]) for i in range(0, len(x), _ROWS)])


def names() -> tuple[str, ...]:
    """Return the names of all densities."""
    return tuple(_MAKE)


def density(name: str) -> Density:
    """Return the density `name`, one of `names()`."""
    return _MAKE[name]()


def _gaussian():
    """N(0, C) with C = diag(1.5^2, 0) rotated by 30 degrees plus 0.5^2 I. A linear generator can model it exactly."""
    w = 1.5 * np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    precision = np.linalg.inv(np.outer(w, w) + 0.5**2 * np.eye(2))
    log_normalizer = np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(precision)[1]

    def log_components(x):
        return (-0.5 * np.einsum("ni,ij,nj->n", x, precision, x) - log_normalizer)[:, None]

    def place(_, u):
        # The Box-Muller transform makes a standard normal from two uniform numbers.
        return np.sqrt(-2 * np.log1p(-u[:, :1])) * np.cos(2 * np.pi * u[:, 1:]) * w

    return Density(1, 0.5, 15.0, place, log_components)


def _eight_gaussians():
    """Eight points on a circle of radius 2; std 0.2; half width 5."""
    angles = 2 * np.pi * np.arange(8) / 8
    return _points(2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1), std=0.2, half_width=5.0)


def _grid_of_gaussians():
    """25 points of a grid with spacing 1; std 0.15; half width 4."""
    axis = np.arange(-2.0, 3.0)
    return _points(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2), std=0.15, half_width=4.0)


def _rings():
    """Circles of radius 1 and 2; std 0.15; half width 4."""

    def place(component, u):
        angle = 2 * np.pi * u[:, 0]
        return (1 + component)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    u = np.arange(200) / 200  # the trapezoidal rule is exact up to rounding for a periodic function
    return _curves(2, place, u, np.full(200, 1 / 200), std=0.15, half_width=4.0)


def _checkerboard():
    """The eight dark squares, of side 1, of a checkerboard on [-2, 2]^2; std 0.1; half width 4."""
    corners = np.array([(i - 2.0, j - 2.0) for i in range(4) for j in range(4) if (i + j) % 2 == 0])
    std = 0.1

    def log_components(x):
        low, high = (corners - x[:, None]) / std, (corners + 1 - x[:, None]) / std  # [N, 8, 2]
        flip = low > 0  # compute ndtr(high) - ndtr(low) in the tail where neither is close to 1
        low, high = np.where(flip, -high, low), np.where(flip, -low, high)
        return np.sum(log_ndtr(high) + np.log1p(-np.exp(log_ndtr(low) - log_ndtr(high))), axis=-1)

    return Density(8, std, 4.0, lambda component, u: corners[component] + u, log_components)


def _moons():
    """Two interlocked half circles of radius 1.5; std 0.15; half width 5."""

    def place(component, u):
        angle = np.pi * (u[:, 0] + component)
        center = np.where(component[:, None] == 0, (-0.75, -0.375), (0.75, 0.375))
        return center + 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    return _curves(2, place, *_gauss_legendre(200), std=0.15, half_width=5.0)


def _spirals():
    """Two arms of one and a quarter turns, from radius 0.3 to 2.5; std 0.12; half width 5."""

    def place(component, u):
        r = 0.3 + 2.2 * u[:, 0]
        angle = 2.5 * np.pi * u[:, 0] + np.pi * component
        return r[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    return _curves(2, place, *_gauss_legendre(400), std=0.12, half_width=5.0)


def _banana():
    """The parabola (t, t^2 / 2 - 1) with t uniform from -2.2 to 2.2; std 0.2; half width 5."""

    def place(_, u):
        t = 2.2 * (2 * u[:, 0] - 1)
        return np.stack([t, t**2 / 2 - 1], axis=-1)

    return _curves(1, place, *_gauss_legendre(200), std=0.2, half_width=5.0)


def _unequal():
    """Four points, with probabilities 0.4, 0.3, 0.2 and 0.1; std 0.25; half width 5. It counts as one component."""
    centers = np.array([(1.5, 1.5), (-1.5, 1.0), (-1.0, -1.5), (2.0, -1.0)])
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    place = lambda _, u: centers[np.searchsorted(np.cumsum(shares)[:-1], u[:, 0], side="right")]
    return _curves(1, place, np.cumsum(shares) - shares / 2, shares, std=0.25, half_width=5.0)


_MAKE = {
    "8gaussians": _eight_gaussians,
    "25gaussians": _grid_of_gaussians,
    "rings": _rings,
    "checkerboard": _checkerboard,
    "moons": _moons,
    "spirals": _spirals,
    "gaussian": _gaussian,
    "banana": _banana,
    "unequal": _unequal,
}


def _points(centers: np.ndarray, *, std: float, half_width: float) -> Density:
    place = lambda component, u: centers[component]
    return _curves(len(centers), place, np.zeros(1), np.ones(1), std=std, half_width=half_width)


def _curves(num: int, place: _Place, u: np.ndarray, weights: np.ndarray, *, std: float, half_width: float) -> Density:
    """Return the density of `num` curves u -> place(k, (u, 0)), by quadrature with nodes u and weights [Q]."""
    pairs = np.stack([u, np.zeros_like(u)], axis=-1)  # [Q, 2]
    nodes = np.concatenate([place(np.full(len(u), k), pairs) for k in range(num)])  # [num Q, 2]
    constant = np.tile(np.log(weights), num) - np.sum(nodes**2, -1) / (2 * std**2) - np.log(2 * np.pi * std**2)

    def log_components(x):
        terms = x @ (nodes.T / std**2) + constant - np.sum(x**2, -1, keepdims=True) / (2 * std**2)
        return logsumexp(terms.reshape(len(x), num, -1), axis=-1)

    return Density(num, std, half_width, place, log_components)


def _gauss_legendre(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num)
    return (nodes + 1) / 2, weights / 2
