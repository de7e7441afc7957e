"""MSE, PSNR and SSIM between pairs of images."""

import jax
import jax.numpy as jnp

RANGE = 2.0
"""Width of the pixel range [-1, 1]."""
WINDOW = 7
"""Height and width of the windows of SSIM, in pixels."""


def mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean squared error per pixel or coordinate. Lower is better.

    Args:
      x: [B, ...], examples.
      y: [B, ...], their reconstructions.

    Returns:
      The mean squared error of each example [B], in squared units of x.
    """
    return jnp.mean((x - y) ** 2, axis=tuple(range(1, x.ndim)))


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the peak signal-to-noise ratio, 10 log10(2^2 / MSE). Higher is better.

    Args:
      x: [B, ...], images in [-1, 1].
      y: [B, ...], their reconstructions.

    Returns:
      The ratio of each image [B], in decibels.
    """
    return 10 * jnp.log10(RANGE**2 / mse(x, y))


def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the structural similarity (Wang et al., 2004), at most 1. Higher is better.

    SSIM is the mean over channels and over all windows of 7 x 7 pixels inside the image of

        (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2)),

    where m are the means in a window, s the unbiased variances and covariance, c1 = (0.01 R)^2, c2 = (0.03 R)^2 and R
    is the width of the pixel range. All pixels of a window have the same weight.

    Args:
      x: [B, H, W, C], images in [-1, 1] of at least 7 x 7 pixels.
      y: [B, H, W, C], their reconstructions.

    Returns:
      The similarity of each image [B].
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
