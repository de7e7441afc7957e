"""Draws from a trained model."""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.sampling import synthesize
from dualmcmc_jax.data.batches import to_uint8
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.step import model_settings


def group_size(config) -> int:
    """Examples per call of the generator: with batch statistics they make one another."""
    return config.evaluation.group_size or config.train.batch_size


def x_chain(config) -> tuple[int, float, float]:
    """(num_steps, step_size, temperature) of the x-revision when sampling."""
    trained = config.x_chain.num_steps, config.x_chain.step_size, config.energy.temperature
    return tuple(config.evaluation.x_chain) or trained


def at_test_time(config):
    """The config with the x-chain of evaluation.x_chain in the place of the trained one, if that is given."""
    config = config.copy_and_resolve_references()
    num_steps, step_size, config.energy.temperature = x_chain(config)
    config.x_chain.update(num_steps=num_steps, step_size=step_size)
    return config


def finish(x: np.ndarray) -> np.ndarray:
    """Images [..., H, W, C] of three or more dimensions in [-1, 1] as uint8; vectors [N, d] as they are."""
    return to_uint8(x) if x.ndim > 3 else x


def sampler(config) -> Callable[..., Iterator[dict[str, np.ndarray]]]:
    """draw(params, *, num_samples, seed): samples before and after the x-revision, a batch at a time.

    params is the state's `average`. Sample i depends on seed, i and, with batch statistics, on its group of
    `group_size`, but not on num_samples or the devices. Drawn are "generator" and "revised": uint8 images [B, H, W, C],
    or float vectors [B, d].
    """
    config = at_test_time(config)
    nets = models.build(config)

    def group(constants, index):
        params, key = constants
        decode = nets.generator.bind(params.generator)
        energy = nets.energy.bind(params.energy)
        drawn = synthesize(chain_keys(key, index), decode, energy, **model_settings(config))
        return {"generator": drawn.generated, "revised": drawn.revised}

    run = parallel.stream(group, group_size(config), desc="sampling")

    def draw(params: Params, *, num_samples: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        for part in run((params, key), num_samples):
            yield {name: finish(x) for name, x in part.items()}

    return draw


_STREAM = 2023
"""Keeps the samples' randomness apart from that of a training run of the same seed."""
