"""The Inception network of 2015, by which FID and the Inception Score are defined, in Flax.

The network is Inception v3 (Szegedy et al., 2015) as TensorFlow released it on 2015-12-05. The weights file names its
arrays as PyTorch's Inception v3 does. The network differs from later versions of Inception v3 in ways that change FID:
the epsilon of batch normalization, average pooling that does not count padding, max pooling in the last block, 1,008
classes, and the resizing and scaling of its input.
"""

import hashlib
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dualmcmc_jax import torch_reader
from dualmcmc_jax.data import cache

NAME = "weights-inception-2015-12-05-6726825d.pth"
"""Name of the weights file."""
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{NAME}"
"""Address of the weights file. The file pt_inception-2015-12-05-6726825d.pth of pytorch-fid has the same content."""
SHA256 = "6726825d"
"""First hexadecimal digits of the sha256 of the weights file."""
VERSION = 1
"""Version of this implementation, part of the key of cached features. Increase it if the features change."""
NUM_FEATURES, NUM_CLASSES = 2048, 1008
BATCH_NORM_EPSILON = 1e-3


class Inception(nn.Module):
    """Inception v3, from uint8 images [B, H, W, 1 or 3] to pool3 features [B, 2048] and logits [B, 1008].

    The logits have no bias, as the Inception Score requires. All arithmetic is in float32. The convolutions have
    biases and no batch normalization, because `convert` folds the batch normalization into them.
    """

    @nn.compact
    def __call__(self, images):
        x = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        x = scale(resize(x.astype(jnp.float32)))  # [B, 299, 299, 3]
        x = _unit(x, "Conv2d_1a_3x3", 32, 3, stride=2)
        x = _unit(x, "Conv2d_2a_3x3", 32, 3, padding="VALID")
        x = max_pool(_unit(x, "Conv2d_2b_3x3", 64, 3), 2)
        x = _unit(x, "Conv2d_3b_1x1", 80, 1)
        x = max_pool(_unit(x, "Conv2d_4a_3x3", 192, 3, padding="VALID"), 2)  # [B, 35, 35, 192]
        for block, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = _mixed_35(x, f"Mixed_{block}", pooled)
        x = _reduce_35(x, "Mixed_6a")  # [B, 17, 17, 768]
        for block, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = _mixed_17(x, f"Mixed_{block}", width)
        x = _reduce_17(x, "Mixed_7a")  # [B, 8, 8, 1280]
        x = _mixed_8(x, "Mixed_7b", average_pool)
        x = _mixed_8(x, "Mixed_7c", last_pool)
        features = x.mean((1, 2))  # [B, 2048]
        return features, nn.Dense(NUM_CLASSES, use_bias=False, precision="highest", name="fc")(features)


def resize(x: jax.Array, size: int = 299) -> jax.Array:
    """Resize images [B, H, W, C] bilinearly, as TensorFlow 1 does: output pixel i reads input position i n / size.

    Here n is the input size. Positions beyond the last pixel read the last pixel.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        source = np.arange(size) * (n / size)
        below = np.floor(source).astype(int)
        weights = np.zeros((size, n), np.float32)
        np.add.at(weights, (np.arange(size), below), 1 - (source - below))
        np.add.at(weights, (np.arange(size), np.minimum(below + 1, n - 1)), source - below)
        x = jnp.moveaxis(jnp.tensordot(weights, x, (1, axis), precision="highest"), 0, axis)
    return x


def scale(x: jax.Array) -> jax.Array:
    """Scale pixels from [0, 255] to [-1, 1)."""
    return (x - 128) / 128


def average_pool(x: jax.Array) -> jax.Array:
    """Average over 3 x 3 windows with stride 1. The average is over the pixels inside the image, without padding."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False).astype(x.dtype)


def max_pool(x: jax.Array, stride: int) -> jax.Array:
    """Take the maximum over 3 x 3 windows. Stride 1 keeps the size; stride 2 uses only windows inside the image."""
    return nn.max_pool(x, (3, 3), (stride, stride), "SAME" if stride == 1 else "VALID")


last_pool = partial(max_pool, stride=1)
"""The pooling of the last block. Later versions of Inception use average pooling there."""


def _unit(x, name, width, size, *, stride=1, padding=None):
    """Apply a convolution and ReLU. By default, stride 1 keeps the size, and stride 2 uses only windows inside x."""
    shape = (size, size) if isinstance(size, int) else size
    padding = padding or ("SAME" if stride == 1 else "VALID")
    return nn.relu(nn.Conv(width, shape, stride, padding, precision="highest", name=name.replace(".", "_"))(x))


def _path(x, block, *units):
    """Apply units, each given as (name, width, size), one after the other."""
    for name, width, size in units:
        x = _unit(x, f"{block}.{name}", width, size)
    return x


def _mixed_35(x, block, pooled):
    five = _path(x, block, ("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5))
    three = _path(x, block, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    pool = _path(average_pool(x), block, ("branch_pool", pooled, 1))
    return jnp.concatenate([_path(x, block, ("branch1x1", 64, 1)), five, three, pool], -1)


def _reduce_35(x, block):
    three = _unit(x, f"{block}.branch3x3", 384, 3, stride=2)
    double = _path(x, block, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3))
    double = _unit(double, f"{block}.branch3x3dbl_3", 96, 3, stride=2)
    return jnp.concatenate([three, double, max_pool(x, 2)], -1)


def _mixed_17(x, block, width):
    wide, tall = (1, 7), (7, 1)
    seven = _path(x, block, ("branch7x7_1", width, 1), ("branch7x7_2", width, wide), ("branch7x7_3", 192, tall))
    widths, sizes = (width, width, width, width, 192), (1, tall, wide, tall, wide)
    names = (f"branch7x7dbl_{i}" for i in range(1, 6))
    double = _path(x, block, *zip(names, widths, sizes, strict=True))
    pool = _path(average_pool(x), block, ("branch_pool", 192, 1))
    return jnp.concatenate([_path(x, block, ("branch1x1", 192, 1)), seven, double, pool], -1)


def _reduce_17(x, block):
    three = _unit(_path(x, block, ("branch3x3_1", 192, 1)), f"{block}.branch3x3_2", 320, 3, stride=2)
    seven = _path(x, block, ("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)))
    seven = _unit(seven, f"{block}.branch7x7x3_4", 192, 3, stride=2)
    return jnp.concatenate([three, seven, max_pool(x, 2)], -1)


def _mixed_8(x, block, pool):
    def fork(x, name):
        return [_path(x, block, (f"{name}a", 384, (1, 3))), _path(x, block, (f"{name}b", 384, (3, 1)))]

    three = fork(_path(x, block, ("branch3x3_1", 384, 1)), "branch3x3_2")
    double = fork(_path(x, block, ("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)), "branch3x3dbl_3")
    pooled = _path(pool(x), block, ("branch_pool", 192, 1))
    return jnp.concatenate([_path(x, block, ("branch1x1", 320, 1)), *three, *double, pooled], -1)


def check_file(path: Path) -> None:
    """Raise ValueError, with the address of the weights, if there is no such file."""
    if not path.is_file():
        raise _not_the_weights(f"no file {path}")


def _not_the_weights(found: str) -> ValueError:
    return ValueError(f"inception_weights: found {found}, expected the file {NAME} of {URL}")


def load(path: Path) -> dict:
    """Load the parameters of `Inception` from the weights file, which can be downloaded from `URL`.

    The file is verified by its sha256. The converted parameters are kept in the cache folder.

    Raises:
      ValueError: the file does not exist, or has a different sha256.
    """
    check_file(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(SHA256):
        raise _not_the_weights(f"{path} with sha256 {digest[:8]}...")
    arrays = cache.arrays(
        "inception",
        {"sha256": digest, "version": VERSION},
        lambda: flatten_dict(convert(torch_reader.load(path)), sep="/"),
    )
    return unflatten_dict(arrays, sep="/")


def convert(weights: dict[str, np.ndarray]) -> dict:
    """Convert PyTorch's arrays to the parameters of `Inception`, and fold batch normalization into convolutions.

    Args:
      weights: arrays by their names in PyTorch, such as "Mixed_5b.branch1x1.conv.weight".

    Returns:
      The parameters, in float32.

    Raises:
      ValueError: an array is missing, or has the wrong shape.
    """
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.uint8)
    params = jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
    units = {name.replace(".", "_"): name for name in (key.removesuffix(".conv.weight") for key in weights)}

    def get(key, shape):
        if key not in weights or weights[key].shape != shape:
            actual = f"an array of shape {weights[key].shape}" if key in weights else "no array"
            raise ValueError(f"inception_weights: found {actual} named {key}, expected an array of shape {shape}")
        return np.asarray(weights[key], np.float64)

    def unit(name, like):
        height, width, inputs, outputs = like["kernel"].shape
        name = units.get(name, name)
        kernel = get(f"{name}.conv.weight", (outputs, inputs, height, width))
        mean, variance, weight, bias = (
            get(f"{name}.bn.{part}", (outputs,)) for part in ("running_mean", "running_var", "weight", "bias")
        )
        gain = weight / np.sqrt(variance + BATCH_NORM_EPSILON)
        return {"kernel": kernel.transpose(2, 3, 1, 0) * gain, "bias": bias - mean * gain}

    converted = {name: unit(name, like) for name, like in params.items() if name != "fc"}
    converted["fc"] = {"kernel": get("fc.weight", (NUM_CLASSES, NUM_FEATURES)).T}
    return jax.tree.map(lambda x: x.astype(np.float32), converted)
