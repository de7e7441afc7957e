"""Trajectories of both chains of Sec. 3.1, step by step (Figure 2 of the paper)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax import random_streams
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data.batches import subset, to_float, to_uint8
from dualmcmc_jax.metrics import image_similarity
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import figures

NUM_CHAINS = 6
"""Chains that are shown. A whole group of chains runs, because batch statistics couple them."""


class XTrajectory(NamedTuple):
    """Some x-chains from g(z).

    Attributes:
      states: [K, num_chains, H, W, C] uint8, about 30 states of each chain, at most every third.
      steps: [K], the number of steps before each state.
      energy: [num_steps, B], the energy before each step.
    """

    states: np.ndarray
    steps: np.ndarray
    energy: np.ndarray


class ZTrajectory(NamedTuple):
    """Some z-chains towards held-out images, decoded.

    Attributes:
      states: [K, num_chains, H, W, C] uint8, g of at most about 20 states of each chain.
      steps: [K], the number of steps before each state.
      mse: [K, B], the mean squared error per pixel.
      x: [num_chains, H, W, C] uint8, the held-out images.
    """

    states: np.ndarray
    steps: np.ndarray
    mse: np.ndarray
    x: np.ndarray


def x_trajectory(model: Model, *, seed: int, num_chains: int = NUM_CHAINS) -> XTrajectory:
    """Run one group of x-chains and keep some states of some chains."""
    num_steps = model.config.x_chain.num_steps
    every = max(3, -(-num_steps // 30))
    states, energy = jax.device_get(_x_chains(model, random_streams.key(seed, Stream.REVISIONS), every))
    return XTrajectory(to_uint8(states[:, :num_chains]), _steps(num_steps, every), energy)


def z_trajectory(model: Model, held_out: np.ndarray, *, seed: int, num_chains: int = NUM_CHAINS) -> ZTrajectory:
    """Run one group of z-chains towards held-out images [N, H, W, C], and decode some states of some chains."""
    num_steps = model.config.z_chain.num_steps
    every = max(1, -(-num_steps // 20))
    x = group_of(held_out, model.group_size)
    decoded, mse = jax.device_get(_z_chains(model, random_streams.key(seed, Stream.REVISIONS), x, every))
    return ZTrajectory(to_uint8(decoded[:, :num_chains]), _steps(num_steps, every), mse, x[:num_chains])


def group_of(held_out: np.ndarray, size: int) -> np.ndarray:
    """Return a fixed random choice of `size` held-out examples, with repetitions if there are fewer."""
    return held_out[np.resize(subset(len(held_out), size), size)]


def x_figure(trajectory: XTrajectory) -> Figure:
    """Draw x-chains, one per row, above the mean energy along them."""
    pixels = figures.tile(trajectory.states.swapaxes(0, 1))
    figure, (above, below) = figures.images_and_curve(pixels, "x-revision: Langevin steps on the energy")
    figures.label_columns(above, trajectory.steps, "after that many Langevin steps")
    below.plot(np.arange(len(trajectory.energy)), trajectory.energy.mean(1))
    below.set(xlabel="Langevin step", ylabel="mean energy", xlim=(0, max(1, trajectory.steps[-1])))
    return figure


def z_figure(trajectory: ZTrajectory) -> Figure:
    """Draw decoded z-chains, one per row and the held-out image last, above the mean squared error along them."""
    pixels = figures.tile(np.concatenate([trajectory.states, trajectory.x[None]]).swapaxes(0, 1))
    title = "z-revision: latents decoded on their way to the held-out image (last)"
    figure, (above, below) = figures.images_and_curve(pixels, title)
    figures.label_columns(above, [*trajectory.steps, "image"], "after that many Langevin steps")
    below.plot(trajectory.steps, trajectory.mse.mean(1), ".-")
    below.set(xlabel="Langevin step", ylabel="mean squared error per pixel", xlim=(0, trajectory.steps[-1]))
    return figure


@partial(jax.jit, static_argnums=2)
def _x_chains(model, key, every):
    """Return the states [K, B, ...] and the energies [num_steps, B] of a group of x-chains."""
    x_key, _ = jax.random.split(key)
    samples = model.bound().synthesize(chain_keys(x_key, jnp.arange(model.group_size)), keep_every=every)
    return samples.trace.states, -samples.trace.log_density * model.config.energy.temperature


@partial(jax.jit, static_argnums=3)
def _z_chains(model, key, x, every):
    """Return the decoded states [K, B, ...] and their errors [K, B] of a group of z-chains."""
    _, z_key = jax.random.split(key)
    bound, x = model.bound(), to_float(x, model.dtype)
    inference = bound.infer(chain_keys(z_key, jnp.arange(model.group_size)), x, keep_every=every)
    decoded = jax.lax.map(bound.decode, inference.trace.states)
    return decoded, jax.vmap(image_similarity.mse, (0, None))(decoded, x)


def _steps(num_steps: int, every: int) -> np.ndarray:
    """Return the numbers of steps before the states that a trace keeps."""
    return np.array([*range(0, num_steps, every), num_steps])
