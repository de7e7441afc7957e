"""Short-run inference (Nijkamp et al. 2020, arXiv:1912.01909): no EBM; z-chains of 25 steps start at noise.

python -m dualmcmc_jax.main --config=configs/baselines/short_run_abp.py:digits
"""

from dualmcmc_jax.configs.baselines import named, untaught, without_energy


def baseline(config):
    """What differs, in a config."""
    without_energy(config)
    config.loss.generator.update(data_weight=1.0, model_weight=0.0)
    untaught(config, "encoder")
    config.z_chain.update(init="noise", num_steps=25)
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return baseline(named(name))
