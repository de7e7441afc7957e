"""Two-dimensional data whose density is known: plain Langevin at temperature 1.

python -m dualmcmc_jax.main --config=configs/toy2d.py
python -m dualmcmc_jax.main --config=configs/toy2d.py --mode=evaluate

Expected: KL(data, EBM) of 0.018, 0.027, 0.046, 0.040 and 0.019 nats for seeds 0 to 4. Other densities, with
--config.data.source=toy2d:NAME --workdir=runs/NAME, blurred by Gaussian noise and integrated on [-h, h]^2:

  8gaussians    points on a circle of radius 2                   std 0.2     h 5
  25gaussians   points of a 5 x 5 grid, one apart                std 0.15    h 4
  rings         circles of radius 1 and 2                        std 0.15    h 4
  checkerboard  squares of side 1, from -2 to 2                  std 0.1     h 4
  moons         two half circles of radius 1.5                   std 0.15    h 5
  spirals       two arms of 1.25 turns, of radius 0.3 to 2.5     std 0.12    h 5
  gaussian      a line of standard deviation 1.5 at 30 degrees   std 0.5     h 15
"""

from dualmcmc_jax.configs import default


def get_config():
    """128-wide MLPs and two latents."""
    config = default.get_config()
    config.data.source = "toy2d:8gaussians"
    config.data.shape = (2,)
    for name in ("energy", "generator", "encoder"):
        config[name].widths = (128, 128, 128)
        config.optimizer[name].update(learning_rate=1e-3, l2=0.0)
    config.energy.spectral_norm = False
    config.energy.temperature = 1.0
    config.generator.latent_dim = 2
    config.x_chain.step_size = 0.005
    config.loss.generator.model_weight = 3.0
    config.loss.encoder.model_weight = 1.0
    config.optimizer.b2 = 0.99
    config.optimizer.decay = 0.7
    config.train.num_steps = 5000
    config.train.batch_size = 256
    config.train.ema_decay = 0.999
    config.log.every = 50
    config.log.num_images = 2000
    config.evaluation.num_samples = 10_000
    return config
