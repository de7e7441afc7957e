"""Alternating back-propagation (Han et al. 2017, arXiv:1606.08571): no EBM; z-chains go on where they ended.

Held-out data have no chain to go on with: theirs start at noise. For other data than digits, toy2d and CIFAR-10, set
z_chain.num_chains to the number of training examples.

python -m dualmcmc_jax.main --config=configs/baselines/abp.py:digits
"""

from dualmcmc_jax.configs.baselines import named, untaught, without_energy
from dualmcmc_jax.data import sources


def baseline(config):
    """What differs, in a config."""
    without_energy(config)
    config.loss.generator.update(data_weight=1.0, model_weight=0.0)
    untaught(config, "encoder")
    num_chains = config.z_chain.num_chains or sources.num_train(config.data) or 50_000  # of CIFAR-10
    config.z_chain.update(init="persistent", num_chains=num_chains)
    config.data.flip = False  # a mirrored example is another one
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return baseline(named(name))
