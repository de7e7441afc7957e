"""What do the two chains do, step by step (Figure 2 of the paper)?"""

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
"""Number of chains that are shown. A whole group of chains is run, because batch statistics couple them."""


class XTrajectory(NamedTuple):
    """Trajectories of x-chains.

    Attributes:
      states: [K, num_chains, H, W, C] uint8, states of some chains. Every third state is kept, or fewer states of a
        long chain, so that K is at most about 30.
      steps: [K], the number of steps before each state.
      energy: [num_steps, B], the energy of all chains before each step.
    """

    states: np.ndarray
    steps: np.ndarray
    energy: np.ndarray


class ZTrajectory(NamedTuple):
    """Trajectories of z-chains, decoded.

    Attributes:
      states: [K, num_chains, H, W, C] uint8, decoded states of some chains; K is at most about 20.
      steps: [K], the number of steps before each state.
      mse: [K, B], mean squared error per pixel of the decoded states of all chains, with pixels in [-1, 1].
      x: [num_chains, H, W, C] uint8, the held-out images whose latents the chains infer.
    """

    states: np.ndarray
    steps: np.ndarray
    mse: np.ndarray
    x: np.ndarray


def x_trajectory(model: Model, *, seed: int, num_chains: int = NUM_CHAINS) -> XTrajectory:
    """Run one group of x-chains, and return some states of the first `num_chains` chains."""
    num_steps = model.config.x_chain.num_steps
    every = max(3, -(-num_steps // 30))
    states, energy = jax.device_get(_x_chains(model, random_streams.key(seed, Stream.REVISIONS), every))
    return XTrajectory(to_uint8(states[:, :num_chains]), _steps(num_steps, every), energy)


def z_trajectory(model: Model, held_out: np.ndarray, *, seed: int, num_chains: int = NUM_CHAINS) -> ZTrajectory:
    """Run z-chains for held-out uint8 images [N, H, W, C], and decode some states of the first `num_chains` chains."""
    num_steps = model.config.z_chain.num_steps
    every = max(1, -(-num_steps // 20))
    x = group_of(held_out, model.group_size)
    decoded, mse = jax.device_get(_z_chains(model, random_streams.key(seed, Stream.REVISIONS), x, every))
    return ZTrajectory(to_uint8(decoded[:, :num_chains]), _steps(num_steps, every), mse, x[:num_chains])


def group_of(held_out: np.ndarray, size: int) -> np.ndarray:
    """Return `size` held-out examples, chosen at random with a fixed seed. If there are fewer, they are repeated."""
    return held_out[np.resize(subset(len(held_out), size), size)]


def x_figure(trajectory: XTrajectory) -> Figure:
    """Draw the states of x-chains, one chain per row, above the mean energy along all chains."""
    pixels = figures.tile(trajectory.states.swapaxes(0, 1))
    figure, (above, below) = figures.images_and_curve(pixels, "x-revision: one chain of the EBM per row")
    figures.label_columns(above, trajectory.steps, "number of steps")
    below.plot(np.arange(len(trajectory.energy)), trajectory.energy.mean(1))
    below.set(xlabel="number of steps", ylabel="mean energy", xlim=(0, max(1, trajectory.steps[-1])))
    return figure


def z_figure(trajectory: ZTrajectory) -> Figure:
    """Draw decoded z-chains, one per row with the held-out image last, above the mean error along all chains."""
    pixels = figures.tile(np.concatenate([trajectory.states, trajectory.x[None]]).swapaxes(0, 1))
    title = "z-revision: one decoded chain per row; last column: the held-out image"
    figure, (above, below) = figures.images_and_curve(pixels, title)
    figures.label_columns(above, [*trajectory.steps, "image"], "number of steps")
    below.plot(trajectory.steps, trajectory.mse.mean(1), ".-")
    below.set(xlabel="number of steps", ylabel="MSE per pixel", xlim=(0, trajectory.steps[-1]))
    return figure


@partial(jax.jit, static_argnums=2)
def _x_chains(model, key, every):
    """Return states [K, B, ...] of a group of x-chains, and the energies [num_steps, B] before each step."""
    x_key, _ = jax.random.split(key)
    samples = model.bound().synthesize(chain_keys(x_key, jnp.arange(model.group_size)), keep_every=every)
    return samples.trace.states, -samples.trace.log_density * model.config.energy.temperature


@partial(jax.jit, static_argnums=3)
def _z_chains(model, key, x, every):
    """Return decoded states [K, B, ...] of a group of z-chains, and their mean squared errors [K, B]."""
    _, z_key = jax.random.split(key)
    bound, x = model.bound(), to_float(x, model.dtype)
    inference = bound.infer(chain_keys(z_key, jnp.arange(model.group_size)), x, keep_every=every)
    decoded = jax.lax.map(bound.decode, inference.trace.states)
    return decoded, jax.vmap(image_similarity.mse, (0, None))(decoded, x)


def _steps(num_steps: int, every: int) -> np.ndarray:
    """Return the number of steps before each state that a trace keeps."""
    return np.array([*range(0, num_steps, every), num_steps])
