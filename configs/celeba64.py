"""CelebA at 64 x 64, with the authors' released recipe.

    python -m dualmcmc_jax.main --config=configs/celeba64.py
    python -m dualmcmc_jax.main --config=configs/celeba64.py --config.data.source=images:img_align_celeba

The second command reads the aligned images from a folder or zip file. Use this command if the download by TensorFlow
Datasets fails because its quota is exceeded. Sort the images into the folders train/ and test/ first.

Expected: FID 5.15 (paper) or 3.84 (the authors' released checkpoint). FID has not been measured with this program.
"""

from dualmcmc_jax.configs import default


def get_config():
    """Return the authors' settings: 301 epochs with batches of 100."""
    config = default.get_config()
    config.data.source = "tfds:celeb_a"
    config.data.shape = (64, 64, 3)
    config.data.crop = (15, 40, 163, 188)
    config.data.flip = True
    config.energy.update(kind="resnet", widths=(64, 128, 256, 512, 1024), num_pools=5)
    config.energy.temperature = (1e-3 / 0.3) ** 2
    config.generator.update(kind="resnet", widths=(1024, 512, 256, 128, 64))
    config.encoder.update(kind="resnet", widths=(128, 256, 512, 1024))
    config.loss.fresh_negatives = True
    config.loss.generator.model_weight = 70.0
    config.train.compute_dtype = "tensorfloat32"  # PyTorch's default for convolutions on NVIDIA GPUs
    config.train.num_steps = 301 * 1627
    config.checkpoint.every = 2500
    config.log.images_every = 2500
    config.evaluation.every = 10_000
    return config
