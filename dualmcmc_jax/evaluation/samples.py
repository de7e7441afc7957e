"""Draws from a trained model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dualmcmc_jax import models
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.sampling import synthesize
from dualmcmc_jax.data.batches import to_uint8
from dualmcmc_jax.training.state import Params
from dualmcmc_jax.training.step import model_settings


def draw(config, params: Params, *, num_samples: int, seed: int) -> dict[str, np.ndarray]:
    """Samples before and after the x-revision.

    Sample i depends on seed, i and, with batch statistics, on its group of evaluation.group_size, not on num_samples.

    Args:
      config: the whole config.
      params: the state's `average`.
      num_samples: N.
      seed: of the samples.

    Returns:
      "generator" and "revised": uint8 images [N, H, W, C], or float vectors [N, d].
    """
    size = config.evaluation.group_size or config.train.batch_size
    nets = models.build(config)

    @jax.jit
    def group(first):
        keys = chain_keys(jax.random.key(seed), first + jnp.arange(size))
        decode = partial(nets.generator.apply, params.generator)
        energy = partial(nets.energy.apply, params.energy)
        drawn = synthesize(keys, decode, energy, **model_settings(config))
        return drawn.generated, drawn.revised

    starts = range(0, num_samples, size)
    groups = [jax.device_get(group(i)) for i in tqdm(starts, unit="group", disable=len(starts) < 20)]
    finish = to_uint8 if len(config.data.shape) == 3 else np.asarray
    stacked = (finish(np.concatenate(parts)[:num_samples]) for parts in zip(*groups, strict=True))
    return dict(zip(("generator", "revised"), stacked, strict=True))
