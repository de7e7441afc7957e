"""Mean squared error, PSNR and SSIM of pairs of images."""

import jax
import jax.numpy as jnp

RANGE = 2.0
"""Width of the range of pixels, [-1, 1]."""
WINDOW = 7
"""Side of SSIM's windows, in pixels."""


def mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean squared error of x and y [B, ...], in squared units of x: [B]."""
    return jnp.mean((x - y) ** 2, axis=tuple(range(1, x.ndim)))


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the peak signal-to-noise ratio of images [B, ...] in [-1, 1], in decibels: [B]."""
    return 10 * jnp.log10(RANGE**2 / mse(x, y))


def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the structural similarity of images [B, H, W, C] in [-1, 1] (Wang et al., 2004): [B].

    The windows of 7 x 7 pixels lie inside of the image and are weighted evenly. Variances are unbiased, and channels
    are averaged.
    """
    size = WINDOW
    window = lambda a: jax.lax.reduce_window(a, 0.0, jax.lax.add, (1, size, size, 1), (1, 1, 1, 1), "VALID") / size**2
    mean_x, mean_y = window(x), window(y)
    unbiased = size**2 / (size**2 - 1)
    variance_x, variance_y = (unbiased * (window(a * a) - m * m) for a, m in ((x, mean_x), (y, mean_y)))
    covariance = unbiased * (window(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))
