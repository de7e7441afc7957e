"""The energy as a density: of data, of samples, of what is no data, and along chains far longer than trained ones."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from dualmcmc_jax import models
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.sampling import revise_x, synthesize
from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import subset, to_float
from dualmcmc_jax.evaluation.drawing import group_size
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.state import param_dtype
from dualmcmc_jax.training.step import chain_settings, model_settings


def meter(config) -> Callable[[Params, np.ndarray], np.ndarray]:
    """measure(params, x): energy [N] of examples x [N, ...], uint8 images or vectors."""
    energy = models.build(config).energy
    run = parallel.stream(
        lambda params, _, x: energy.bind(params.energy)(to_float(x, param_dtype(config))),
        config.evaluation.batch_size,
        desc="energies",
    )
    return lambda params, x: parallel.collect(run(params, len(x), x))


def auroc(data: np.ndarray, other: np.ndarray) -> float:
    """The probability that an example of the data has a lower energy than one of another set; ties count half.

    NaN if an energy is.
    """
    if not np.isfinite([data.sum(), other.sum()]).all():
        return float("nan")
    labels = np.repeat([1, 0], [len(data), len(other)])
    return float(roc_auc_score(labels, -np.concatenate([data, other])))


def out_of_distribution(config, held_out: np.ndarray) -> dict[str, np.ndarray]:
    """Sets of examples, at most as many as held_out, that are no data of the model's: [N, ...] by name.

    uniform_noise; constant images (one colour each); average_of_two held-out examples; and some test,
    then training, examples of every source in evaluation.ood.

    Raises:
      ValueError: a source cannot be read, or its examples have another shape.
    """
    random, shape, is_image = np.random.RandomState(0), held_out.shape, len(config.data.shape) == 3
    exact = held_out.astype(np.uint16 if is_image else held_out.dtype)
    sets = {"average_of_two": ((exact + np.roll(exact, 1, axis=0)) / 2).astype(held_out.dtype)}
    if is_image:
        sets["uniform_noise"] = random.randint(0, 256, shape, np.uint8)
        sets["constant"] = np.broadcast_to(random.randint(0, 256, (shape[0], 1, 1, shape[3]), np.uint8), shape)
    else:
        low, high = held_out.min(0), held_out.max(0)
        sets["uniform_noise"] = random.uniform(low, high, shape).astype(held_out.dtype)
    for source in config.evaluation.ood:
        data = config.data.copy_and_resolve_references()
        data.update(source=source, crop=())
        try:
            dataset = sources.load(data)
        except ValueError as error:
            shape = tuple(config.data.shape)
            other = f"found examples of another shape, expected {shape}, that of the data"
            what = other if str(error).startswith("data.shape") else error
            raise ValueError(f"evaluation.ood: {source!r}: {what}") from error
        few = dataset.test[subset(len(dataset.test), len(held_out))]
        more = dataset.train[subset(len(dataset.train), len(held_out) - len(few))]
        sets[source] = np.concatenate([few, more])
    return sets


class LongRun(NamedTuple):
    """A group's chains, 1, 10 and 100 times as long as the trained ones.

    Attributes:
      steps: [3], those lengths.
      states: [3, B, ...], the chains after so many steps.
      energy: [steps[-1] + 1, B], before the first step and after each.
    """

    steps: list[int]
    states: np.ndarray
    energy: np.ndarray


def long_run(config) -> Callable[..., LongRun]:
    """run(params, *, seed): one group of x-chains from their starts in training; config.x_chain.num_steps is not 0."""
    nets = models.build(config)
    size, num_steps = group_size(config), config.x_chain.num_steps

    @jax.jit
    def start(params, key):
        decode = nets.generator.bind(params.generator)
        energy = nets.energy.bind(params.energy)
        settings = model_settings(config) | {"num_steps": 0}
        x = synthesize(chain_keys(key, jnp.arange(size)), decode, energy, **settings).revised
        return x, energy(x)[None]

    @jax.jit
    def further(params, key, x):
        energy = nets.energy.bind(params.energy)
        x, trace = revise_x(chain_keys(key, jnp.arange(size)), energy, x, **chain_settings(config))
        before = -trace.log_density * config.energy.temperature
        return x, jnp.concatenate([before[1:], energy(x)[None]])

    def run(params: Params, *, seed: int) -> LongRun:
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        x, first = start(params, jax.random.fold_in(key, 0))
        energies, states = [first], []
        for i in tqdm(range(1, 101), desc="long chains", unit="chain length", delay=2, leave=False):
            x, after = further(params, jax.random.fold_in(key, i), x)
            energies.append(after)
            if i in (1, 10, 100):
                states.append(np.asarray(x))
        steps = [num_steps * times for times in (1, 10, 100)]
        return LongRun(steps, np.stack(states), np.concatenate(jax.device_get(energies)))

    return run


_STREAM = 2026
"""Keeps this randomness apart from that of training, samples, strips and reconstructions of the same seed."""
