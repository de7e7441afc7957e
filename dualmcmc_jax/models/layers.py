"""Layers the residual networks share. Images are [B, H, W, C]."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

xavier_normal = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")


def uniform_fan_in(fan_in: int):
    """PyTorch's default for linear weights and all biases: uniform in +-1/sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def check_widths(name: str, widths: tuple[int, ...], *, may_be_empty: bool = False) -> None:
    """Raise ValueError unless the widths of the network of that name are positive integers."""
    if not (widths or may_be_empty) or not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(f"{name}.widths: found {widths}, expected positive integers")


def precision(dtype: Any) -> str:
    """Return the precision to ask of a product, because TPUs and GPUs round float32 unless told not to.

    Products in bfloat16 take the default. All others take `jax_default_matmul_precision`, or "highest" if it is unset.
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
    """A size x size convolution of x to `width` channels, Xavier normal; called inside a compact method."""
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
    """A linear map of x [B, d] to [B, features], with PyTorch's initial values; called inside a compact method."""
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
    """Normalization over B, H, W of the batch at hand, and across devices if axis_name is given.

    There are no running averages, so the layer is a pure function of the batch; flax's BatchNorm always keeps some.
    Statistics are computed at least in float32.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.normal(1.0), (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
        if self.axis_name and not self.is_initializing():  # one collective, and no difference of large squares
            means, variances = jnp.moveaxis(jax.lax.all_gather(jnp.stack([mean, variance]), self.axis_name), 1, 0)
            mean = means.mean(0)
            variance = variances.mean(0) + ((means - mean) ** 2).mean(0)
        y = (y - mean) * jax.lax.rsqrt(variance + 1e-5)
        return (y * scale + bias).astype(x.dtype)


def _batch_norm(x: jax.Array, *, axis_name: str | None, name: str) -> jax.Array:
    return BatchNorm(axis_name, name=name)(x)


def _group_norm(x: jax.Array, *, axis_name: str | None, name: str) -> jax.Array:
    """Normalize over H, W and groups of channels of each example."""
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
    """Normalize x with a learned scale, N(0, 1) at first, and bias, 0 at first; called inside a compact method."""
    return NORMS[kind](x, axis_name=axis_name, name=name)


def avg_pool(x: jax.Array) -> jax.Array:
    """The mean of each 2 x 2 patch, at least in float32."""
    b, h, w, c = x.shape
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4), dtype=dtype).astype(x.dtype)


def fold_avg_pool(kernel: jax.Array) -> jax.Array:
    """The kernel [4, 4, I, O] of a convolution of stride 2 that does what [3, 3, I, O] and then `avg_pool` do.

    It is the mean of the four shifts of the small kernel: 16 products for each pooled pixel instead of 36.
    """
    shifts = [((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)) for i in (0, 1) for j in (0, 1)]
    return sum(jnp.pad(kernel, shift) for shift in shifts) / 4


def upsample(x: jax.Array) -> jax.Array:
    """Bilinear x2 with aligned corners: output i reads source i (n - 1) / (2n - 1)."""
    for axis in (1, 2):
        n = x.shape[axis]
        source = np.arange(2 * n) * ((n - 1) / (2 * n - 1))
        weights = np.maximum(0, 1 - np.abs(source[:, None] - np.arange(n)))  # [2n, n]
        y = jnp.tensordot(jnp.asarray(weights, x.dtype), x, (1, axis), precision=precision(x.dtype))
        x = jnp.moveaxis(y, 0, axis)
    return x
