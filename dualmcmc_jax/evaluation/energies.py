"""The energy as a density: of data, of samples, of what is no data, and along chains far longer than trained ones."""

from collections.abc import Callable
from functools import partial
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
from dualmcmc_jax.evaluation import devices
from dualmcmc_jax.evaluation.samples import group_size
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.state import param_dtype
from dualmcmc_jax.training.step import model_settings


def meter(config) -> Callable[[Params, np.ndarray], np.ndarray]:
    """measure(params, x): energy [N] of examples x [N, ...], uint8 images or vectors."""
    energy = models.build(config).energy
    run = devices.stream(
        lambda params, _, x: energy.apply(params.energy, to_float(x, param_dtype(config))),
        config.evaluation.batch_size,
        desc="energies",
    )
    return lambda params, x: devices.collect(run(params, len(x), x))


def auroc(data: np.ndarray, other: np.ndarray) -> float:
    """The probability that an example of the data has a lower energy than one of another set; ties count half."""
    labels = np.repeat([1, 0], [len(data), len(other)])
    return float(roc_auc_score(labels, -np.concatenate([data, other])))


def out_of_distribution(config, held_out: np.ndarray) -> dict[str, np.ndarray]:
    """Sets of examples, at most as many as held_out, that are no data of the model's: [N, ...] by name.

    uniform_noise; constant images (one colour each); interpolation: the mean of two held-out examples; and the test
    examples of every source in evaluation.ood, then its training examples.

    Raises:
      ValueError: a source cannot be read, or its examples have another shape.
    """
    random, shape = np.random.RandomState(0), held_out.shape
    pairs = held_out[random.permutation(len(held_out))].astype(np.float64)
    sets = {"interpolation": ((pairs + np.roll(pairs, 1, axis=0)) / 2).astype(held_out.dtype)}
    if held_out.dtype == np.uint8:
        sets["uniform_noise"] = random.randint(0, 256, shape).astype(np.uint8)
        colours = random.randint(0, 256, (len(held_out), 1, 1, shape[-1]))
        sets["constant"] = np.broadcast_to(colours, shape).astype(np.uint8)
    else:
        low, high = held_out.min(0), held_out.max(0)
        sets["uniform_noise"] = random.uniform(low, high, shape).astype(held_out.dtype)
    for source in config.evaluation.ood:
        data = config.data.copy_and_resolve_references()
        data.update(source=source, crop=())
        try:
            dataset = sources.load(data)
        except ValueError as error:
            raise ValueError(f"evaluation.ood: {source!r}: {error}") from error
        few = dataset.test[subset(len(dataset.test), len(held_out))]
        more = dataset.train[subset(len(dataset.train), len(held_out) - len(few))]
        sets[source] = np.concatenate([few, more])
    return sets


class LongRun(NamedTuple):
    """A group's chains. steps [3]: 1, 10 and 100 times the trained length; states [3, B, ...], the chains after those;
    energy [steps[-1], B]: before each step."""

    steps: list[int]
    states: np.ndarray
    energy: np.ndarray


def long_run(config) -> Callable[..., LongRun]:
    """run(params, *, seed): one group of x-chains, from the generator, a hundred times as long as the trained ones."""
    nets = models.build(config)
    settings = model_settings(config)
    size, num_steps = group_size(config), config.x_chain.num_steps

    @jax.jit
    def start(params, key):
        decode = partial(nets.generator.apply, params.generator)
        energy = partial(nets.energy.apply, params.energy)
        return synthesize(chain_keys(key, jnp.arange(size)), decode, energy, **settings | {"num_steps": 0}).generated

    chain = {name: settings[name] for name in ("num_steps", "step_size", "temperature", "unroll")}

    @jax.jit
    def further(params, key, x):
        x, trace = revise_x(chain_keys(key, jnp.arange(size)), partial(nets.energy.apply, params.energy), x, **chain)
        return x, -trace.log_density * config.energy.temperature

    def run(params: Params, *, seed: int) -> LongRun:
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        x, energies, states = start(params, key), [], []
        for i in tqdm(range(1, 101), desc="long chains", unit="chain length", delay=2, leave=False):
            x, energy = further(params, jax.random.fold_in(key, i), x)
            energies.append(energy)
            if i in (1, 10, 100):
                states.append(np.asarray(x))
        steps = [num_steps * times for times in (1, 10, 100)]
        return LongRun(steps, np.stack(states), np.concatenate(jax.device_get(energies)))

    return run


_STREAM = 2026
"""Keeps this randomness apart from that of training, samples, strips and reconstructions of the same seed."""
