"""Where do persistent chains start? Storage of their last states, from which later updates continue the chains."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dualmcmc_jax.core.langevin import normal

RESTARTS = 0.05
"""Probability with which an update restarts each of its x-chains from noise (Du & Mordatch 2019)."""


class Chains(NamedTuple):
    """One value for the x-chains and one for the z-chains, such as states or indices.

    The states in a train state have the shapes below. If `x_chain.init` or `z_chain.init` is not "persistent", the
    states of these chains are None.

    Attributes:
      x: [N, ...] states of the x-chains. Each update continues the next train.batch_size chains, and begins again with
        the first chain after the last.
      z: [N, d] states of the z-chains, one chain per training example.
    """

    x: Any
    z: Any


def create(key: jax.Array, config, dtype) -> Chains:
    """Create the persistent chains of a config, with standard normal numbers as their initial states.

    Args:
      key: a PRNG key.
      config: the full config (uses data.shape, generator.latent_dim, x_chain and z_chain).
      dtype: dtype of the states.

    Returns:
      The states of all persistent chains.
    """
    shapes = Chains(tuple(config.data.shape), (config.generator.latent_dim,))
    states = [
        jax.random.normal(key, (chain.num_chains, *shape), dtype) if chain.init == "persistent" else None
        for key, chain, shape in zip(jax.random.split(key), (config.x_chain, config.z_chain), shapes, strict=True)
    ]
    return Chains(*states)


def places(chains: Chains, step: jax.Array, index: jax.Array, example: jax.Array, *, batch_size: int) -> Chains:
    """Return the indices of the chains that an update continues.

    Args:
      chains: the states of all persistent chains.
      step: number of updates made so far.
      index: [B] positions of this device's examples in the batch of all devices.
      example: [B] indices of this device's examples in the training data.
      batch_size: number of examples per update, over all devices.

    Returns:
      Indices [B] into chains.x and into chains.z.
    """
    num = 1 if chains.x is None else len(chains.x)
    # This equals (step * batch_size + index) % num, but step * batch_size could overflow int32. `loop.check_chains`
    # bounds num * batch_size by 2^31.
    return Chains((step % num * (batch_size % num) + index) % num, example)


def starts(keys: jax.Array, chains: Chains, places: Chains) -> Chains:
    """Return the argument `init` of `synthesize` and of `infer` for the persistent chains of an update.

    Each x-chain is restarted from noise with probability `RESTARTS`.

    Args:
      keys: [B] keys, one per chain.
      chains: the states of all persistent chains.
      places: the indices of the chains to continue, from `places`.

    Returns:
      A dict of keyword arguments for the x-chains and one for the z-chains: {"init": states [B, ...]} if the chains are
      persistent, otherwise {}.
    """
    x, z = {}, {}
    if chains.x is not None:
        last = chains.x[places.x]
        restart = jax.vmap(lambda key: jax.random.uniform(key) < RESTARTS)(keys)
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), last.shape[1:], last.dtype)
        x["init"] = jnp.where(restart.reshape(-1, *(1,) * (last.ndim - 1)), noise, last)
    if chains.z is not None:
        z["init"] = chains.z[places.z]
    return Chains(x, z)


def keep(chains: Chains, places: Chains, ends: Chains, *, axis_name: str) -> Chains:
    """Store the final states of the chains that an update has continued.

    Args:
      chains: the states of all persistent chains, the same on every device.
      places: the indices [B] of the chains that this device has continued.
      ends: the final states [B, ...] of these chains.
      axis_name: name of the device axis.

    Returns:
      The states of all persistent chains after the update, the same on every device.
    """

    def store(states, place, end):
        gather = lambda part: lax.all_gather(part, axis_name, tiled=True)
        return None if states is None else states.at[gather(place)].set(gather(end))

    return Chains(*map(store, chains, places, ends))
