"""Persistent chains: they go on, in the next update that they are part of, from where they ended in the last."""

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
    """Chains that have not moved yet: standard normals."""
    shapes = Chains(tuple(config.data.shape), (config.generator.latent_dim,))
    made = [
        jax.random.normal(key, (chain.num_chains, *shape), dtype) if chain.init == "persistent" else None
        for key, chain, shape in zip(jax.random.split(key), (config.x_chain, config.z_chain), shapes, strict=True)
    ]
    return Chains(*made)


def places(chains: Chains, step: jax.Array, index: jax.Array, example: jax.Array, *, batch_size: int) -> Chains:
    """Which chains [B] an update continues, for global batch index [B] of training examples [B]."""
    num = 1 if chains.x is None else len(chains.x)
    return Chains((step % num * (batch_size % num) + index) % num, example)


def starts(keys: jax.Array, chains: Chains, places: Chains) -> Chains:
    """Of both chains, `init` as of `synthesize` and `infer`, [B, ...]; nothing of those that start anew."""
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
    """The chains after an update in which those at places [B] of each device came to ends [B, ...]."""

    def put(kept, place, end):
        everyone = lambda part: lax.all_gather(part, axis_name, tiled=True)
        return None if kept is None else kept.at[everyone(place)].set(everyone(end))

    return Chains(*map(put, chains, places, ends))
