"""Your own images, at 64 x 64 in color. At least a few thousand images are needed.

    python -m dualmcmc_jax.main --config=configs/images.py --config.data.source=images:FOLDER_OR_ZIP

The networks are half as wide as those of configs/celeba64.py, and the energy is trained by the paper's Eq. 7.

Expected: results depend on the images. No result has been measured with this config.
"""

from dualmcmc_jax.configs import default


def get_config():
    """Return settings for 100,000 updates with batches of 64. Samples use an average of the parameters."""
    config = default.get_config()
    config.data.source = "images:images"
    config.data.shape = (64, 64, 3)
    config.data.flip = True
    config.energy.update(kind="resnet", widths=(32, 64, 128, 256, 512), num_pools=5)
    config.energy.temperature = (1e-3 / 0.3) ** 2
    config.generator.update(kind="resnet", widths=(512, 256, 128, 64, 32))
    config.encoder.update(kind="resnet", widths=(64, 128, 256, 512))
    config.train.num_steps = 100_000
    config.train.batch_size = 64
    config.train.ema_decay = 0.999
    return config
