"""Your own images, at 64 x 64 in color. At least a few thousand images are needed.

    python -m dualmcmc_jax.main --config=configs/images.py --config.data.source=images:FOLDER_OR_ZIP

For other sizes, add --config.data.shape="(S,S,3)" with S = 8, 16, 32, 64, 128 or 256, or "(S,S,1)" for gray images. The
depths of the networks follow from this shape. At 64 x 64, the networks are half as wide as those of
configs/celeba64.py. The energy is trained by the paper's Eq. 7.

Expected: results depend on the images. No result has been measured with this config.
"""

from typing import NamedTuple

from ml_collections import FieldReference

from dualmcmc_jax.configs import default


class Operation(NamedTuple):
    """A function of field references, which is computed when its field is read."""

    fn: object
    args: tuple = ()


def get_config():
    """Return settings for 100,000 updates with batches of 64. Samples use an average of the parameters.

    The widths and energy.num_pools are functions of data.shape, unless the command line sets them.
    """
    config = default.get_config()
    config.data.source = "images:images"
    config.data.shape = (64, 64, 3)
    config.data.flip = True
    shape = config.data.get_ref("shape")
    of_shape = lambda function: FieldReference(shape, field_type=tuple, op=Operation(function))
    num_halvings = lambda shape: max(1, (shape[0] // 4).bit_length() - 1)  # to a size of 4 pixels
    widths = lambda first, num: tuple(min(first * 2**i, 512) for i in range(num))
    config.energy.update(kind="resnet", widths=of_shape(lambda shape: widths(32, num_halvings(shape) + 1)))
    config.energy.num_pools = FieldReference(0, op=Operation(lambda _, shape: num_halvings(shape) + 1, (shape,)))
    config.energy.temperature = (1e-3 / 0.3) ** 2
    config.generator.update(kind="resnet", widths=of_shape(lambda shape: widths(32, num_halvings(shape) + 1)[::-1]))
    config.encoder.update(kind="resnet", widths=of_shape(lambda shape: widths(64, num_halvings(shape))))
    config.train.compute_dtype = "tensorfloat32"
    config.train.num_steps = 100_000
    config.train.batch_size = 64
    config.train.ema_decay = 0.999
    return config
