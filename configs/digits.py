"""scikit-learn's digits: 1,500 scanned digits of 8 x 8 pixels. Training takes about a minute on two CPU cores.

    python -m dualmcmc_jax.main --config=configs/digits.py
    python -m dualmcmc_jax.main --config=configs/digits.py --mode=evaluate

Expected, measured with seeds 0, 1 and 2 on 1,500 samples against the training images:

- Frechet distance in pixel space 0.22 to 0.23 (the generator alone 0.48 to 0.53);
- SVC score 6.6 to 6.7 (real digits 7.7);
- held-out reconstruction MSE 0.021 to 0.022 (the inference model alone 0.027 to 0.028).

Limitation: the energy is trained with chains of 30 steps. Much longer chains move away from the data, as the section on
long x-chains in the report of --mode=evaluate shows. Measured with seed 0, the share of pixels outside [-1, 1] is 29%
after 30 steps, 60% after 300 and 93% after 3,000. Samples after 3,000 steps have a Frechet distance of 20 and an SVC
score of 2.9. The config `digits_long_chains` mends this.
"""

from dualmcmc_jax.configs import default


def get_config():
    """Return settings for MLPs.

    The generator's weight of model pairs is small, so that the x-revision can improve the generator's samples.
    """
    config = default.get_config()
    config.energy.spectral_norm = False
    config.energy.temperature = (0.01 / 0.3) ** 2
    config.generator.widths = (256, 256)
    config.generator.latent_dim = 16
    config.generator.variance = 0.02
    config.encoder.widths = (256, 256)
    config.x_chain.step_size = 0.01**2 / 2
    config.loss.generator.model_weight = 0.1
    config.optimizer.energy.learning_rate = 5e-4
    config.optimizer.encoder.learning_rate = 3e-4
    config.train.num_steps = 1500
    config.train.ema_decay = 0.99
    config.checkpoint.every = 500
    config.log.every = 10
    config.log.images_every = 500
    config.evaluation.update(num_samples=1500, every=500)
    return config
