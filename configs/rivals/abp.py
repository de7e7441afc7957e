"""Alternating back-propagation (Han et al. 2017, arXiv:1606.08571): no EBM; z-chains go on where they ended.

For data of other sizes, set z_chain.num_chains to the number of training examples.

python -m dualmcmc_jax.main --config=configs/rivals/abp.py:digits
"""

from dualmcmc_jax.configs.rivals import NO_LOSS, named, without_energy


def rival(config):
    """What differs, in a config."""
    without_energy(config)
    config.loss.generator.update(data_weight=1.0, model_weight=0.0)
    config.loss.encoder.update(NO_LOSS)
    kind = config.data.source.partition(":")[0]
    num_examples = {"digits": 1500, "toy2d": 100_000}.get(kind, 50_000)
    config.z_chain.update(init="persistent", num_chains=num_examples)
    return config


def get_config(name="digits"):
    """The method on the data, and with the networks, of the config of that name."""
    return rival(named(name))
