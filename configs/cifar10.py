"""CIFAR-10, the authors' released recipe.

python -m dualmcmc_jax.main --config=configs/cifar10.py
python -m dualmcmc_jax.main --config=configs/cifar10.py --mode=evaluate --inception_weights=FILE

Expected: FID 9.26 and Inception Score 8.55 (paper); FID 7.86 (the authors' checkpoint, with their sampler of 70 steps,
--config.evaluation.x_chain="(70,5e-7,6.25e-6)"); here unmeasured. --config.loss.fresh_negatives=False gives the paper's
Eq. 7. On 8 devices, --config.train.batch_size=104.
"""

from dualmcmc_jax.configs import default


def get_config():
    """301 epochs of batch 100; temperature and step sizes, losses and optimizers are the default's."""
    config = default.get_config()
    config.data.source = "tfds:cifar10"
    config.data.shape = (32, 32, 3)
    config.energy.update(kind="resnet", widths=(512, 512, 512, 512), num_pools=2)
    config.generator.update(kind="resnet", widths=(512, 512, 512, 512))
    config.encoder.update(kind="resnet", widths=(128, 256, 512, 1024))
    config.loss.fresh_negatives = True
    config.train.num_steps = 301 * 500
    config.checkpoint.every = 2500
    config.log.images_every = 2500
    config.evaluation.every = 10_000
    return config
