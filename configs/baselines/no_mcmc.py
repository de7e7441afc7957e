"""No-MCMC EBM (VERA; Grathwohl et al. 2021, arXiv:2010.04230): a generator follows the EBM, its entropy bounded by q.

The paper estimates the gradient of the entropy from a posterior fitted to each sample; here -log q(z | g(z)) of the
inference model bounds it. Never sees data but through the energy.

python -m dualmcmc_jax.main --config=configs/baselines/no_mcmc.py:digits
"""

from dualmcmc_jax.configs.baselines import named, without_chains


def baseline(config):
    """What differs, in a config."""
    without_chains(config)
    config.loss.generated.update(energy_weight=1.0, posterior_weight=1.0)
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return baseline(named(name))
