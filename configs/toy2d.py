"""Two-dimensional data with a ground-truth density, and an EBM at temperature 1.

    python -m dualmcmc_jax.main --config=configs/toy2d.py
    python -m dualmcmc_jax.main --config=configs/toy2d.py --mode=evaluate

To train on another density, add --config.data.source=toy2d:NAME --workdir=runs/NAME. Every density is blurred by
Gaussian noise with the standard deviation "std" of the table. Quadrature integrates over the square [-h, h]^2.

  8gaussians    points on a circle of radius 2                    std 0.2     h 5
  25gaussians   points of a 5 x 5 grid with spacing 1             std 0.15    h 4
  rings         circles of radius 1 and 2                         std 0.15    h 4
  checkerboard  the eight dark squares, of side 1, of a board from -2 to 2    std 0.1    h 4
  moons         two half circles of radius 1.5                    std 0.15    h 5
  spirals       two arms of 1.25 turns, from radius 0.3 to 2.5    std 0.12    h 5
  gaussian      a line with standard deviation 1.5 at 30 degrees  std 0.5     h 15
  banana        the parabola y = x^2 / 2 - 1, x from -2.2 to 2.2  std 0.2     h 5
  unequal       four points, probabilities 0.4, 0.3, 0.2 and 0.1  std 0.25    h 5

Expected after 8,000 updates, about two minutes on two CPU cores, measured as KL(data, EBM), the median of five seeds:
0.0015 nats on 8gaussians, 0.0039 on 25gaussians, 0.0008 on rings, 0.0022 on checkerboard, 0.0013 on moons, 0.0034 on
spirals and 0.0004 on gaussian. docs/densities.md has all numbers.

The initial states of the x-chains are resampled by importance weights (docs/densities.md). The chains can therefore be
short, and their steps small.

The learning rates are multiplied by optimizer.decay=0.85 after every epoch, which here has 390 updates. For a small npz
file, choose a value nearer to 1: with 1,000 examples an epoch has 3 updates, and 0.85 would soon leave nothing.
"""

from dualmcmc_jax.configs import default


def get_config():
    """Return settings for MLPs of width 128 and two latent variables."""
    config = default.get_config()
    config.data.source = "toy2d:8gaussians"
    config.data.shape = (2,)
    for name in ("energy", "generator", "encoder"):
        config[name].widths = (128, 128, 128)
        config.optimizer[name].update(learning_rate=1e-3, l2=0.0)
    config.energy.spectral_norm = False
    config.energy.temperature = 1.0
    config.generator.latent_dim = 2
    config.x_chain.update(num_steps=5, step_size=0.001, start_std=0.3)
    config.x_chain.update(resample=0.5, proposals=10, broad_proposals=1, broad_std=4.0)
    config.loss.generator.model_weight = 3.0
    config.loss.encoder.model_weight = 1.0
    config.optimizer.energy.learning_rate = 6e-3
    config.optimizer.b2 = 0.99
    config.optimizer.decay = 0.85
    config.train.num_steps = 8000
    config.train.batch_size = 256
    config.train.ema_decay = 0.999
    config.log.every = 50
    config.log.num_images = 2000
    config.evaluation.num_samples = 10_000
    return config
