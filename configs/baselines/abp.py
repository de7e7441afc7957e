"""Alternating back-propagation (Han et al. 2017, arXiv:1606.08571).

    python -m dualmcmc_jax.main --config=configs/baselines/abp.py:digits

There is no EBM. Each training example has a persistent z-chain, which continues from its last state. Held-out examples
have no persistent chain, so their z-chains start at noise.

For data other than digits, toy2d and CIFAR-10, set z_chain.num_chains to the number of training examples.

Measured on digits (see configs/baselines/__init__.py): Frechet distance 1.05 ± 0.18, SVC score 3.55 ± 0.19,
reconstruction MSE 0.0545.
"""

from dualmcmc_jax.configs.baselines import named, untrained, without_energy
from dualmcmc_jax.data import sources


def baseline(config):
    """Return `config`, changed in place to this method."""
    without_energy(config)
    config.loss.generator.update(data_weight=1.0, model_weight=0.0)
    untrained(config, "encoder")
    # 50,000 is the number of training images of CIFAR-10.
    num_chains = config.z_chain.num_chains or sources.num_train(config.data) or 50_000
    config.z_chain.update(init="persistent", num_chains=num_chains)
    config.data.flip = False  # the persistent latent of an example does not fit its mirror image
    return config


def get_config(name="digits"):
    """Return the config `name` of configs/, changed to this method."""
    return baseline(named(name))
