"""Baseline methods as configs: the same train step with other chain starts, chain lengths and loss weights.

Each file changes one of the configs, which the command line names after a colon: --config=baselines/vae:digits.
Networks, optimizers, batches and, unless a docstring says otherwise, chains are those of the named config.
"""

import importlib
from pathlib import Path

from dualmcmc_jax.training import objectives

NETS = ("energy", "generator", "encoder")
NO_LOSS = {"data_weight": 0.0, "model_weight": 0.0}
TEMPERATURE = 0.1
"""Of energies that no chain follows: in perceptrons, spectral norm leaves f about as steep as 1 / T at most."""


def untaught(config, *names: str) -> None:
    """Networks that no loss of their own teaches, and that nothing else moves."""
    for name in names:
        config.loss[name].update(NO_LOSS)
        config.optimizer[name].l2 = 0.0


def without_energy(config) -> None:
    """Neither learns the energy, nor revises by it."""
    untaught(config, "energy")
    config.x_chain.num_steps, config.evaluation.x_chain = 0, ()


def without_chains(config) -> None:
    """An energy that learns from samples of the generator as they are."""
    config.loss.generator.update(NO_LOSS)
    config.loss.encoder.update(NO_LOSS)
    config.energy.update(spectral_norm=True, temperature=TEMPERATURE)
    config.x_chain.num_steps, config.evaluation.x_chain = 0, ()


def autoencoder(config) -> None:
    """The ELBO, whose scale is the generator's: so must be that of the encoder's L2 beside it."""
    config.loss.elbo.weight = 1.0
    config.optimizer.encoder.l2 *= 2 * config.generator.variance


def names() -> list[str]:
    """Of the methods."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def check_base(config) -> None:
    """Raises ValueError for a config that is a baseline's already."""
    if objectives.added(config) or not all(config.loss[name].data_weight for name in objectives.METHOD):
        raise ValueError("found a config of another method, expected one of dual-MCMC, such as --config=digits")


def changed(name: str, config):
    """A copy of a config, changed to the method of that name."""
    baseline = importlib.import_module(f"{__name__}.{name}").baseline
    return baseline(config.copy_and_resolve_references())


def named(name: str):
    """The config of that name, of those in configs/."""
    try:
        return importlib.import_module(f"dualmcmc_jax.configs.{name}").get_config()
    except ImportError as error:
        raise ValueError(f"found {name!r}, expected the name of a config, as in baselines/vae:digits") from error
