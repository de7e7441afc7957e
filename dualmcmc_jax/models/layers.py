"""Layers that the networks share. Images are [B, H, W, C].

The functions that create parameters (`conv`, `linear` and `norm`) must be called inside a compact method of flax.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

xavier_normal = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")


def uniform_fan_in(fan_in: int):
    """Return an initializer that draws from the uniform distribution on +-1/sqrt(fan_in).

    This is PyTorch's default for linear weights and for the biases of linear layers and convolutions.

    Args:
      fan_in: number of inputs of each output unit.
    """

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def check_widths(name: str, widths: tuple[int, ...], *, may_be_empty: bool = False) -> None:
    """Raise ValueError unless the widths of a network are positive integers.

    Args:
      name: the config section of the network, for the error message.
      widths: the widths to check.
      may_be_empty: whether () is allowed.
    """
    if not (widths or may_be_empty) or not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(f"{name}.widths: found {widths}, expected positive integers")


def precision(dtype: Any) -> str:
    """Return the precision of a matrix product or convolution, as an argument for JAX.

    By default, TPUs and GPUs round the operands of float32 products to fewer bits. Unless the dtype is bfloat16, this
    function therefore returns the value of JAX's option `jax_default_matmul_precision`, or "highest" if the option is
    not set.

    Args:
      dtype: dtype of the product; None stands for float32 or float64.
    """
    return "default" if dtype == jnp.bfloat16 else jax.config.jax_default_matmul_precision or "highest"


def conv(
    x: jax.Array,
    width: int,
    size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    use_bias: bool = False,
    dtype: Any = None,
    name: str,
) -> jax.Array:
    """Apply a convolution whose kernel has the initializer `xavier_normal`, and its bias PyTorch's default.

    Args:
      x: [B, H, W, C] images.
      width: number of output channels.
      size: height and width of the kernel, in pixels.
      stride: stride, in pixels.
      padding: zero padding on each side, in pixels.
      use_bias: whether to add a bias.
      dtype: dtype of the computation. None: the dtype of parameters and inputs.
      name: name of the layer's parameters.

    Returns:
      Images with `width` channels.
    """
    return nn.Conv(
        width,
        (size, size),
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        dtype=dtype,
        precision=precision(dtype),
        kernel_init=xavier_normal,
        bias_init=uniform_fan_in(size**2 * x.shape[-1]),
        name=name,
    )(x)


def linear(
    x: jax.Array, features: int, *, use_bias: bool = True, kernel_init: Any = None, dtype: Any = None, name: str
) -> jax.Array:
    """Apply a linear layer, by default with PyTorch's initial values.

    Args:
      x: [B, d] vectors.
      features: number of outputs.
      use_bias: whether to add a bias.
      kernel_init: initializer of the kernel. None: `uniform_fan_in`.
      dtype: dtype of the computation. None: the dtype of parameters and inputs.
      name: name of the layer's parameters.

    Returns:
      [B, features].
    """
    init = uniform_fan_in(x.shape[-1])
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        precision=precision(dtype),
        kernel_init=kernel_init or init,
        bias_init=init,
        name=name,
    )(x)


class BatchNorm(nn.Module):
    """Batch normalization with the statistics of the current batch, in training and in sampling.

    The mean and the biased variance are taken over B, H and W, and over the devices of axis_name if it is given. The
    layer keeps no running averages, so it is a pure function of the batch. (The BatchNorm of flax always keeps running
    averages.) Statistics are computed in float32 or higher precision.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.normal(1.0), (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, variance = _moments(y)
        if self.axis_name and not self.is_initializing():  # one all-gather for mean and variance
            means, variances = jnp.moveaxis(jax.lax.all_gather(jnp.stack([mean, variance]), self.axis_name), 1, 0)
            mean = means.mean(0)
            variance = variances.mean(0) + ((means - mean) ** 2).mean(0)  # E[x^2] - mean^2 would lose precision
        y = (y - mean) * jax.lax.rsqrt(variance + 1e-5)
        return (y * scale + bias).astype(x.dtype)


def _moments(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and biased variance of each channel of y [B, H, W, C], computed in one pass through y.

    The variance is E[d^2] - E[d]^2, where d is the difference from one of the pixels. This pixel is about as far from
    the mean as others, so the subtraction loses no more than a few bits, however large the mean is.
    """
    pivot = jax.lax.stop_gradient(y[0, 0, 0])
    d = y - pivot
    first, second = d.mean((0, 1, 2)), jnp.square(d).mean((0, 1, 2))
    return pivot + first, second - jnp.square(first)


def _batch_norm(x: jax.Array, *, axis_name: str | None, name: str) -> jax.Array:
    return BatchNorm(axis_name, name=name)(x)


def _group_norm(x: jax.Array, *, axis_name: str | None, name: str) -> jax.Array:
    """Normalize each example over H, W and groups of channels."""
    layer = nn.GroupNorm(
        num_groups=int(np.gcd(32, x.shape[-1])),
        epsilon=1e-5,
        param_dtype=jax.dtypes.canonicalize_dtype(float),
        scale_init=nn.initializers.normal(1.0),
        use_fast_variance=False,
        name=name,
    )
    return layer(x).astype(x.dtype)


NORMS = {"batch": _batch_norm, "group": _group_norm}


def norm(kind: str, x: jax.Array, *, axis_name: str | None, name: str) -> jax.Array:
    """Normalize images, then multiply by a trained scale and add a trained bias per channel.

    The initial scales are drawn from N(0, 1). The initial biases are 0.

    Args:
      kind: "batch" (see `BatchNorm`) or "group": over H, W and groups of channels of each example.
      x: [B, H, W, C] images.
      axis_name: name of the device axis over which "batch" computes its statistics, or None.
      name: name of the layer's parameters.

    Returns:
      [B, H, W, C] normalized images.
    """
    return NORMS[kind](x, axis_name=axis_name, name=name)


ACTIVATIONS = {"relu": nn.relu, "swish": nn.swish, "softplus": nn.softplus}
"""Elementwise functions by name. swish is x sigmoid(x), also called SiLU. softplus is log(1 + exp(x))."""


def avg_pool(x: jax.Array) -> jax.Array:
    """Apply 2 x 2 average pooling. Means are computed in float32 or higher precision.

    Args:
      x: [B, H, W, C] images with even H and W.

    Returns:
      [B, H / 2, W / 2, C] images.
    """
    b, h, w, c = x.shape
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4), dtype=dtype).astype(x.dtype)


def fold_avg_pool(kernel: jax.Array) -> jax.Array:
    """Fold 2 x 2 average pooling into the convolution before it.

    A 3 x 3 convolution followed by `avg_pool` is the same function as a 4 x 4 convolution of stride 2. The 4 x 4 kernel
    is the mean of four copies of the 3 x 3 kernel, one in each corner. For each pooled pixel and each pair of channels,
    this form needs 16 products instead of 36.

    Args:
      kernel: [3, 3, I, O] kernel of a convolution of stride 1 and padding 1.

    Returns:
      [4, 4, I, O] kernel of a convolution of stride 2 and padding 1.
    """
    shifts = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in (0, 1) for j in (0, 1)]
    return sum(jnp.pad(kernel, shift) for shift in shifts) / 4


def upsample(x: jax.Array) -> jax.Array:
    """Double the size of images by bilinear interpolation with aligned corners, like the authors' code.

    Pixel i of the output is the input at position i (n - 1) / (2n - 1), where n is the number of pixels of the input.
    `jax.image.resize` cannot align corners.

    Args:
      x: [B, H, W, C] images.

    Returns:
      [B, 2 H, 2 W, C] images.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        source = np.arange(2 * n) * ((n - 1) / (2 * n - 1))
        weights = np.maximum(0, 1 - np.abs(source[:, None] - np.arange(n)))  # [2n, n]
        y = jnp.tensordot(jnp.asarray(weights, x.dtype), x, (1, axis), precision=precision(x.dtype))
        x = jnp.moveaxis(y, 0, axis)
    return x
