"""CIFAR-10, with the authors' released recipe.

    python -m dualmcmc_jax.main --config=configs/cifar10.py
    python -m dualmcmc_jax.main --config=configs/cifar10.py --mode=evaluate --inception_weights=FILE

Add --config.train.batch_size=104 on 8 devices, because the batch size must be a multiple of the number of devices. Add
--config.loss.fresh_negatives=False to train the energy by the paper's Eq. 7.

Expected: FID 9.26 and Inception Score 8.55 (paper), or FID 7.86 (the authors' released checkpoint with their sampler of
70 steps, --config.evaluation.x_chain="(70,5e-7,6.25e-6)"). Neither has been measured with this program.
"""

from dualmcmc_jax.configs import default


def get_config():
    """Return the authors' settings: 301 epochs with batches of 100.

    Chains, loss weights and optimizers are those of configs/default.py.
    """
    config = default.get_config()
    config.data.source = "tfds:cifar10"
    config.data.shape = (32, 32, 3)
    config.energy.update(kind="resnet", widths=(512, 512, 512, 512), num_pools=2)
    config.generator.update(kind="resnet", widths=(512, 512, 512, 512))
    config.encoder.update(kind="resnet", widths=(128, 256, 512, 1024))
    config.loss.fresh_negatives = True
    config.train.compute_dtype = "tensorfloat32"  # PyTorch's default for convolutions on NVIDIA GPUs
    config.train.num_steps = 301 * 500
    config.checkpoint.every = 2500
    config.log.images_every = 2500
    config.evaluation.every = 10_000
    return config
