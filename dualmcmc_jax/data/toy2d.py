"""Two-dimensional data with a known density."""

import numpy as np

RADIUS = 2.0
STD = 0.2
BOX = 5.0
"""Half the side of the square outside which the density is negligible (below exp(-100))."""

_ANGLES = 2 * np.pi * np.arange(8) / 8
_CENTERS = RADIUS * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)  # [8, 2]


def sample(random: np.random.RandomState, num: int) -> np.ndarray:
    """[num, 2] float32 draws of the mixture of eight Gaussians on a circle."""
    centers = _CENTERS[random.randint(8, size=num)]
    return (centers + STD * random.standard_normal((num, 2))).astype(np.float32)


def log_density(x: np.ndarray) -> np.ndarray:
    """The exact log-density, in nats: [..., 2] -> [...]."""
    square = np.sum((x[..., None, :] - _CENTERS) ** 2, axis=-1)  # [..., 8]
    return np.logaddexp.reduce(-square / (2 * STD**2), axis=-1) - np.log(8 * 2 * np.pi * STD**2)
