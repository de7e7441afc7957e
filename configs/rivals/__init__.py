"""Other methods as configs: the same train step with other starts, lengths and weights.

Each file changes one of the configs, named after a colon: --config=rivals/vae:digits. What is not changed is the same:
networks, optimisers, batches and, unless said otherwise, chains.
"""

import importlib
from pathlib import Path

NO_LOSS = {"data_weight": 0.0, "model_weight": 0.0}
TEMPERATURE = 0.1
"""Of energies whose slope spectral norm bounds by 1 and no chain follows: f is as steep as 10 nats in a unit of x."""


def without_energy(config) -> None:
    """Neither learns the energy, nor revises by it."""
    config.x_chain.num_steps = 0
    config.loss.energy.update(NO_LOSS)


def without_chains(config) -> None:
    """An energy that learns from samples of the generator as they are, its slope bounded."""
    config.x_chain.num_steps = 0
    config.energy.update(spectral_norm=True, temperature=TEMPERATURE)
    config.loss.generator.update(NO_LOSS)
    config.loss.encoder.update(NO_LOSS)


def names() -> list[str]:
    """Of the methods."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def changed(name: str, config):
    """A copy of a config, changed to the method of that name."""
    rival = importlib.import_module(f"{__name__}.{name}").rival
    return rival(config.copy_and_resolve_references())


def named(name: str):
    """The config of that name, of those in configs/."""
    try:
        return importlib.import_module(f"dualmcmc_jax.configs.{name}").get_config()
    except ImportError as error:
        raise ValueError(f"found {name!r}, expected the name of a config, as in rivals/vae:digits") from error
