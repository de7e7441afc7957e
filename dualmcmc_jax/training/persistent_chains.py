"""Persistent chains continue from their last state the next time an update uses them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dualmcmc_jax.core.langevin import normal

RESTARTS = 0.05
"""The share of x-chains that start anew, from noise, in each update (Du & Mordatch 2019)."""


class Chains(NamedTuple):
    """Attributes:
    x: [N, ...] states of x-chains, of which each update takes the next batch_size; None if they start anew.
    z: [N, d] latents, one of each training example; None if they start anew.
    """

    x: Any
    z: Any


def create(key: jax.Array, config, dtype) -> Chains:
    """Return chains that have not moved yet: standard normals."""
    shapes = Chains(tuple(config.data.shape), (config.generator.latent_dim,))
    made = [
        jax.random.normal(key, (chain.num_chains, *shape), dtype) if chain.init == "persistent" else None
        for key, chain, shape in zip(jax.random.split(key), (config.x_chain, config.z_chain), shapes, strict=True)
    ]
    return Chains(*made)


def places(chains: Chains, step: jax.Array, index: jax.Array, example: jax.Array, *, batch_size: int) -> Chains:
    """Return the indices [B] of the chains that an update continues.

    Args:
      chains: all persistent chains.
      step: updates made so far.
      index: [B], places in the batch over all devices.
      example: [B], the training examples at these places.
      batch_size: examples per update, over all devices.
    """
    num = 1 if chains.x is None else len(chains.x)
    return Chains((step % num * (batch_size % num) + index) % num, example)


def starts(keys: jax.Array, chains: Chains, places: Chains) -> Chains:
    """Return `init` of each persistent chain, [B, ...], as keyword arguments; an empty dict for other chains."""
    x, z = {}, {}
    if chains.x is not None:
        kept = chains.x[places.x]
        anew = jax.vmap(lambda key: jax.random.uniform(key) < RESTARTS)(keys)
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), kept.shape[1:], kept.dtype)
        x["init"] = jnp.where(anew.reshape(-1, *(1,) * (kept.ndim - 1)), noise, kept)
    if chains.z is not None:
        z["init"] = chains.z[places.z]
    return Chains(x, z)


def keep(chains: Chains, places: Chains, ends: Chains, *, axis_name: str) -> Chains:
    """Store the final states `ends` [B, ...] at `places` [B], gathered from all devices."""

    def put(kept, place, end):
        everyone = lambda part: lax.all_gather(part, axis_name, tiled=True)
        return None if kept is None else kept.at[everyone(place)].set(everyone(end))

    return Chains(*map(put, chains, places, ends))
