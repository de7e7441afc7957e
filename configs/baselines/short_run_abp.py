"""Short-run inference (Nijkamp et al. 2020, arXiv:1912.01909): z-chains of 25 steps from noise, no EBM.

    python -m dualmcmc_jax.main --config=configs/baselines/short_run_abp.py:digits

Measured on digits (see configs/baselines/__init__.py): Frechet distance 1.24 ± 0.06, SVC score 3.36 ± 0.07,
reconstruction MSE 0.0272.
"""

from dualmcmc_jax.configs.baselines import named, untrained, without_energy


def baseline(config):
    """Return `config`, changed in place to this method."""
    without_energy(config)
    config.loss.generator.update(data_weight=1.0, model_weight=0.0)
    untrained(config, "encoder")
    config.z_chain.update(init="noise", num_steps=25)
    return config


def get_config(name="digits"):
    """Return the config `name` of configs/, changed to this method."""
    return baseline(named(name))
