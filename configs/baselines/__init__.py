"""Baseline methods as configs, and functions that these configs share.

Each file of this folder changes the config whose name follows the colon. For example, --config=baselines/vae:digits
trains a VAE on the digits. A baseline runs the same train step as dual-MCMC, with other chain starts, chain lengths and
loss weights. The networks, the optimizers, the batch size and, unless the docstring of the file says otherwise, the
chains are those of the named config. Hyperparameters were tuned for dual-MCMC only, not for the baselines.

The results in the docstrings were measured with three seeds and 30 seconds of training per run on two busy CPU cores:

    python -m dualmcmc_jax.study baselines --config=digits --seconds=30

In this study, dual-MCMC has a Frechet distance of 0.232, an SVC score of 6.33, a held-out reconstruction MSE of 0.0218
and an out-of-distribution AUROC of 0.976.
"""

import importlib
from pathlib import Path

from dualmcmc_jax.training import objectives

NETS = ("energy", "generator", "encoder")
NO_LOSS = {"data_weight": 0.0, "model_weight": 0.0}
TEMPERATURE = 0.1
"""Temperature T for training without x-chains. In an MLP, spectral norm limits the slope of f to about 1 / T."""


def untrained(config, *names: str) -> None:
    """Turn off the losses of Eq. 7, 10 and 15, the penalties and the decay of the named networks, and resampling.

    Resampling of initial states needs all three networks.
    """
    config.x_chain.resample = 0.0
    for name in names:
        config.loss[name].update(NO_LOSS)
        config.optimizer[name].update(l2=0.0, weight_decay=0.0)
    for penalty in objectives.PENALTIES:
        if objectives.OBJECTIVES[penalty].trains.keys() & set(names):
            config.loss[penalty].weight = 0.0


def without_energy(config) -> None:
    """Train no energy and run no x-chain."""
    untrained(config, "energy")
    config.x_chain.num_steps, config.evaluation.x_chain = 0, ()


def without_chains(config) -> None:
    """Train the energy on samples of the generator without an x-chain, and turn off the losses of Eq. 10 and 15."""
    config.loss.generator.update(NO_LOSS)
    config.loss.encoder.update(NO_LOSS)
    config.x_chain.resample = 0.0
    config.energy.update(spectral_norm=True, temperature=TEMPERATURE)
    config.x_chain.num_steps, config.evaluation.x_chain = 0, ()


def autoencoder(config) -> None:
    """Train the generator and the encoder by the ELBO.

    The loss is the negative ELBO times 2 sigma^2. The encoder's weight decay is multiplied by the same factor.
    """
    config.loss.elbo.weight = 1.0
    config.optimizer.encoder.l2 *= 2 * config.generator.variance


def names() -> list[str]:
    """Return the names of all baseline methods."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def check_base(config) -> None:
    """Raise ValueError if a config is that of a baseline method instead of dual-MCMC."""
    others = objectives.added(config).difference(objectives.PENALTIES)
    if others or not all(config.loss[name].data_weight for name in objectives.METHOD):
        raise ValueError("found the config of a baseline method, expected a dual-MCMC config, such as --config=digits")


def changed(name: str, config):
    """Return a copy of a config, changed to the baseline method `name`."""
    baseline = importlib.import_module(f"{__name__}.{name}").baseline
    return baseline(config.copy_and_resolve_references())


def named(name: str):
    """Return the config of the file `name` in configs/."""
    try:
        return importlib.import_module(f"dualmcmc_jax.configs.{name}").get_config()
    except ImportError as error:
        raise ValueError(f"found {name!r}, expected the name of a config, as in baselines/vae:digits") from error
