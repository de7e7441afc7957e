"""Your own images, at 64 x 64 in colour.

python -m dualmcmc_jax.main --config=configs/images.py --config.data.source=images:FOLDER_OR_ZIP

Expected: unmeasured. Networks half as wide as for CelebA, and the paper's Eq. 7; some thousands of images are wanted.
"""

from dualmcmc_jax.configs import default


def get_config():
    """100,000 updates of batch 64, with an average of the parameters for samples."""
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
