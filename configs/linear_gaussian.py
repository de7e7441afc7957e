"""Gaussian data, a linear generator, a linear inference model and a quadratic energy.

The maximum-likelihood parameters and the fixed point of training with finite chains have closed forms, and
--mode=evaluate compares the learned parameters with both.

    python -m dualmcmc_jax.main --config=configs/linear_gaussian.py
    python -m dualmcmc_jax.main --config=configs/linear_gaussian.py --mode=evaluate

Expected, measured with seeds 0, 1 and 2 (about a minute on two CPU cores): the variances of the EBM, the weight of the
generator, and the slope and variance of the inference model are within 0.5% of the fixed point and within 2.5% of
maximum likelihood. The KL divergences of the EBM, the generator and the inference model from maximum likelihood are at
most 2e-4, 1e-4 and 4e-4 nats.

With --config.loss.generator.model_weight=1 the fixed point is far from maximum likelihood. A long x-chain makes x~
independent of the z in the same pair, so that the model pairs (x~, z) bias the weight of the generator towards 0.
"""

from dualmcmc_jax.configs import default


def get_config():
    """Return settings whose fixed point is near maximum likelihood.

    The generator and the inference model are not trained on model pairs. The x-chain is so long that its end hardly
    depends on its start.
    """
    config = default.get_config()
    config.data.source = "toy2d:gaussian"
    config.data.shape = (2,)
    config.energy.update(kind="quadratic", widths=(), spectral_norm=False, temperature=1.0)
    config.generator.update(widths=(), latent_dim=1, variance=0.25)
    config.encoder.widths = ()
    config.x_chain.update(num_steps=300, step_size=0.01)
    config.z_chain.update(num_steps=40, step_size=0.002)
    for name in ("energy", "generator", "encoder"):
        config.optimizer[name].update(learning_rate=0.02, l2=0.0)
    config.loss.generator.model_weight = 0.0
    config.loss.encoder.model_weight = 0.0
    config.optimizer.b2 = 0.99
    config.optimizer.decay = 0.7
    config.train.num_steps = 5000
    config.train.batch_size = 256
    config.train.ema_decay = 0.998
    config.log.num_images = 2000
    config.evaluation.num_samples = 10_000
    return config
