"""MNIST: 60,000 handwritten digits of 28 x 28 pixels, with small convolutional networks."""

from dualmcmc_jax.configs import default


def get_config():
    """Return settings for strided convolutions."""
    config = default.get_config()
    config.data.source = "tfds:mnist"
    config.data.shape = (28, 28, 1)
    config.energy.update(kind="conv", widths=(32, 64, 128), spectral_norm=False, temperature=(0.01 / 0.3) ** 2)
    config.generator.update(kind="conv", widths=(64, 32), latent_dim=32, variance=0.02)
    config.encoder.update(kind="conv", widths=(32, 64, 128))
    config.x_chain.step_size = 0.01**2 / 2
    config.loss.generator.model_weight = 0.1
    config.optimizer.energy.learning_rate = 5e-4
    config.optimizer.encoder.learning_rate = 3e-4
    config.train.num_steps = 6000
    config.train.ema_decay = 0.999
    config.checkpoint.every = 1000
    config.log.every = 20
    config.evaluation.update(num_samples=10_000, features="mnist_classifier")
    return config
