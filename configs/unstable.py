"""The config `digits` with a learning rate of the energy that is 50 times as high. Training blows up.

    python -m dualmcmc_jax.main --config=configs/unstable.py
    python -m dualmcmc_jax.study stability --config=unstable --seeds=5

Expected: the run stops within 2,000 updates, because a number is not finite or the energies are too far apart. The
seeds 0 to 4 stopped after 640, 820, 730, 980 and 750 updates. Use the config to try the options of docs/stability.md.
The study compares them.
"""

from dualmcmc_jax.configs import digits


def get_config():
    """Return settings with which the energy learns faster than its samples can follow."""
    config = digits.get_config()
    config.optimizer.energy.learning_rate = 0.025
    config.train.num_steps = 2000
    return config
