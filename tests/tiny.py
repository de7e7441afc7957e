"""Small configs and models for tests that need a complete run."""

import json

from dualmcmc_jax import models
from dualmcmc_jax.configs import default
from dualmcmc_jax.model import Model
from dualmcmc_jax.training import optimizers
from dualmcmc_jax.training import state as train_state


def config(**fields):
    """Return a config that trains on digits within seconds.

    Args:
      **fields: values of config fields. The names contain "__" in place of ".".
    """
    config = default.get_config()
    config.generator.latent_dim = 4
    for name in ("energy", "generator", "encoder"):
        config[name].widths = (16,)
    config.x_chain.num_steps = 3
    config.z_chain.num_steps = 2
    config.train.update(num_steps=40, batch_size=40, ema_decay=0.9, unroll=1)
    config.checkpoint.every = 20
    config.log.update(every=5, images_every=20, num_images=9)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def rows(workdir):
    """Return the rows of metrics.jsonl without steps_per_second, which differs between runs."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "steps_per_second"} for line in lines]


def coupled(**fields):
    """Return a float64 config whose generator couples the examples of a group by batch normalization."""
    coupled = config(train__compute_dtype="float64", evaluation__group_size=16, evaluation__num_samples=70)
    coupled.generator.update(kind="resnet", widths=(4, 4))
    coupled.energy.temperature = 0.1
    coupled.x_chain.step_size = 0.01
    coupled.evaluation.update(num_held_out=50, num_neighbours=40)
    coupled.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return coupled


def model(config):
    """Return an untrained model."""
    return Model.create(config, train_state.create(config, models.build(config), optimizers.build(config, 1)).average)
