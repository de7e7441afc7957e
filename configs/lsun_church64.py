"""Churches of LSUN at 64 x 64, with the networks and the settings of configs/celeba64.py.

    python -m dualmcmc_jax.main --config=configs/lsun_church64.py --config.data.source=images:FOLDER_OR_ZIP
    python -m dualmcmc_jax.main --config=configs/lsun_church64.py

The first command reads the images of the category "church_outdoor" from a folder or a zip file with train/ and val/.
The second command reads them by TensorFlow Datasets, which needs the package tensorflow-io to prepare them. The largest
centered square of each image is resized.

The paper reports FID 4.56 on this data set but not how it trained, so this recipe is our own. Expected: unknown. No
result has been measured with this config.
"""

from dualmcmc_jax.configs import celeba64


def get_config():
    """Return settings for 301 epochs of 126,227 images with batches of 100."""
    config = celeba64.get_config()
    config.data.source = "tfds:lsun/church_outdoor"
    config.data.crop = ()
    config.train.num_steps = 301 * 1262
    return config
