"""Pictures of a model while it trains: samples, and what the two revisions do."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.core import densities, sampling
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import to_float, to_uint8
from dualmcmc_jax.evaluation import figures, samples
from dualmcmc_jax.training.state import TrainState, param_dtype
from dualmcmc_jax.training.step import data_settings, model_settings


def drawer(config, folder: Path) -> Callable[[int, TrainState], dict[str, np.ndarray]]:
    """draw(step, state) writes samples and, of images, both revisions into folder as PNG; returns them by name."""
    sampler = samples.sampler(config)
    revise = revisions(config) if len(config.data.shape) == 3 else None

    def draw(step: int, state: TrainState) -> dict[str, np.ndarray]:
        drawn = sampler(state.average, num_samples=config.log.num_images, seed=config.train.seed)
        made = {"samples": figures.samples(drawn)}
        if revise:
            made["revisions"] = figures.revisions(**revise(state.average))
        name = {"samples": f"step_{step:08d}.png", "revisions": f"revisions_{step:08d}.png"}
        return {title: figures.save(folder / name[title], figure) for title, figure in made.items()}

    return draw


def revisions(config, num_chains: int = 6, num_states: int = 10) -> Callable[..., dict[str, np.ndarray]]:
    """revise(params): both chains of Sec. 3.1 as they run, by a program compiled once.

    It gives, for `figures.revisions`: x_states [K, num_chains, H, W, C] uint8, some states of the x-chain from g(z);
    z_states likewise, g of some states of the z-chain towards x [num_chains, H, W, C], held-out images; x_steps and
    z_steps [K], how many steps those states are after; energy [num_steps, B] before each step and mse [K, B] per pixel.
    """
    nets = models.build(config)
    held_out = sources.load(config.data).test
    size = config.evaluation.group_size or config.train.batch_size
    x = held_out[np.arange(size) % len(held_out)]
    keep = lambda chain: max(1, chain.num_steps // num_states)

    @jax.jit
    def run(params, x):
        x = to_float(x, param_dtype(config))
        key = jax.random.fold_in(jax.random.key(config.train.seed), _STREAM)
        model_keys, data_keys = (chain_keys(k, jnp.arange(size)) for k in jax.random.split(key))
        decode = partial(nets.generator.apply, params.generator)
        energy = partial(nets.energy.apply, params.energy)
        encode = partial(nets.encoder.apply, params.encoder)
        x_kept, z_kept = keep(config.x_chain), keep(config.z_chain)
        model = sampling.synthesize(model_keys, decode, energy, keep_every=x_kept, **model_settings(config))
        data = sampling.infer(data_keys, encode, decode, x, keep_every=z_kept, **data_settings(config))
        decoded = jax.lax.map(decode, data.trace.states)
        error = densities.squared_norm(decoded.reshape(-1, *x.shape[1:]) - jnp.tile(x, (len(decoded), 1, 1, 1)))
        return {
            "x_states": model.trace.states[:, :num_chains],
            "energy": -model.trace.log_density * config.energy.temperature,
            "z_states": decoded[:, :num_chains],
            "mse": error.reshape(len(decoded), -1) / x[0].size,
        }

    def revise(params) -> dict[str, np.ndarray]:
        found = jax.device_get(run(params, x))
        states = {name: to_uint8(found[name]) for name in ("x_states", "z_states")}
        steps = lambda chain: [*range(0, chain.num_steps, keep(chain)), chain.num_steps]
        labels = {"x_steps": steps(config.x_chain), "z_steps": steps(config.z_chain)}
        return found | states | labels | {"x": x[:num_chains]}

    return revise


_STREAM = 2024
"""Keeps this randomness apart from that of training and of samples of the same seed."""
