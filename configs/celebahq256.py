"""CelebA-HQ at 256 x 256, with the networks of configs/celeba64.py and two more levels.

    python -m dualmcmc_jax.main --config=configs/celebahq256.py --config.data.source=images:FOLDER_OR_ZIP
    python -m dualmcmc_jax.main --config=configs/celebahq256.py

The first command reads the 30,000 images from a folder or a zip file. The second command reads them by TensorFlow
Datasets, which expects that you have made the file data256x256.tar in its folder of manual downloads. Either way, every
tenth image is held out, unless the folder has train/ and test/.

The paper reports FID 15.89 on this data set but not how it trained, so this recipe is our own. Expected: unknown. No
result has been measured with this config. At resolutions up to 64 x 64 the networks have the widths of
configs/celeba64.py, and half and a quarter of the smallest of these widths at 128 x 128 and at 256 x 256.
"""

from dualmcmc_jax.configs import celeba64


def get_config():
    """Return settings for 301 epochs of 27,000 images with batches of 64."""
    config = celeba64.get_config()
    config.data.source = "tfds:celeb_a_hq/256"
    config.data.shape = (256, 256, 3)
    config.data.crop = ()
    config.energy.update(widths=(16, 32, 64, 128, 256, 512, 1024), num_pools=7)
    config.generator.widths = (1024, 512, 256, 128, 64, 32, 16)
    config.encoder.widths = (32, 64, 128, 256, 512, 1024)
    config.train.num_steps = 301 * 421
    config.train.batch_size = 64
    config.log.num_images = 25
    config.evaluation.update(num_samples=30_000, num_neighbours=2000)
    return config
