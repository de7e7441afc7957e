"""Draws from a trained model."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dualmcmc_jax import models
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.sampling import synthesize
from dualmcmc_jax.data.batches import to_uint8
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.step import model_settings


def sampler(config) -> Callable[..., dict[str, np.ndarray]]:
    """draw(params, *, num_samples, seed): samples before and after the x-revision, by a program compiled once.

    params is the state's `average`. Sample i depends on seed, i and, with batch statistics, on its group of
    evaluation.group_size, but not on num_samples. Drawn are "generator" and "revised": uint8 images [N, H, W, C], or
    float vectors [N, d].
    """
    size = config.evaluation.group_size or config.train.batch_size
    nets = models.build(config)
    finish = to_uint8 if len(config.data.shape) == 3 else np.asarray

    @jax.jit
    def group(params: Params, key, first):
        decode = partial(nets.generator.apply, params.generator)
        energy = partial(nets.energy.apply, params.energy)
        drawn = synthesize(chain_keys(key, first + jnp.arange(size)), decode, energy, **model_settings(config))
        return drawn.generated, drawn.revised

    def draw(params: Params, *, num_samples: int, seed: int) -> dict[str, np.ndarray]:
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        starts = range(0, num_samples, size)
        groups = [jax.device_get(group(params, key, i)) for i in tqdm(starts, unit="group", disable=len(starts) < 20)]
        stacked = (finish(np.concatenate(parts)[:num_samples]) for parts in zip(*groups, strict=True))
        return dict(zip(("generator", "revised"), stacked, strict=True))

    return draw


_STREAM = 2023
"""Keeps the samples' randomness apart from that of a training run of the same seed."""
