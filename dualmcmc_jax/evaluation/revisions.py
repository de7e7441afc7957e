"""What the two revisions do step by step, and images between images (Figures 2 and 4 of the paper)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.core import sampling
from dualmcmc_jax.core.langevin import chain_keys, normal
from dualmcmc_jax.data.batches import subset, to_float, to_uint8
from dualmcmc_jax.evaluation.drawing import at_test_time, group_size
from dualmcmc_jax.metrics import image_similarity
from dualmcmc_jax.training.state import param_dtype
from dualmcmc_jax.training.step import chain_settings, data_settings, model_settings

Arrays = dict[str, np.ndarray]


def revisions(config, held_out: np.ndarray, num_chains: int = 6) -> Callable[..., Arrays]:
    """revise(params, *, seed): both chains of Sec. 3.1 as they run, of one group each, by a program compiled once.

    It gives x_states [K, num_chains, H, W, C] uint8, every third state of the x-chain from g(z); z_states likewise, g
    of every state of the z-chain towards x [num_chains, H, W, C], held-out images; x_steps and z_steps [K], how many
    steps those states are after; energy [num_steps, B] before each step, and mse [K, B] per pixel. Chains longer than
    90 and 20 steps are thinned to about 30 and 20 states.
    """
    config = at_test_time(config)
    nets = models.build(config)
    size = group_size(config)
    x = held_out[np.resize(subset(len(held_out), size), size)]
    x_every, z_every = max(3, -(-config.x_chain.num_steps // 30)), max(1, -(-config.z_chain.num_steps // 20))

    @jax.jit
    def run(params, key, x):
        x = to_float(x, param_dtype(config))
        model_keys, data_keys = (chain_keys(k, jnp.arange(size)) for k in jax.random.split(key))
        decode = nets.generator.bind(params.generator)
        energy = nets.energy.bind(params.energy)
        encode = nets.encoder.bind(params.encoder)
        model = sampling.synthesize(model_keys, decode, energy, keep_every=x_every, **model_settings(config))
        data = sampling.infer(data_keys, encode, decode, x, keep_every=z_every, **data_settings(config))
        decoded = jax.lax.map(decode, data.trace.states)
        return {
            "x_states": model.trace.states[:, :num_chains],
            "energy": -model.trace.log_density * config.energy.temperature,
            "z_states": decoded[:, :num_chains],
            "mse": jax.vmap(image_similarity.mse, (0, None))(decoded, x),
        }

    def revise(params, *, seed: int) -> Arrays:
        found = jax.device_get(run(params, jax.random.fold_in(jax.random.key(seed), _STREAM), x))
        states = {name: to_uint8(found[name]) for name in ("x_states", "z_states")}
        steps = lambda chain, every: np.array([*range(0, chain.num_steps, every), chain.num_steps])
        labels = {"x_steps": steps(config.x_chain, x_every), "z_steps": steps(config.z_chain, z_every)}
        return found | states | labels | {"x": x[:num_chains]}

    return revise


def interpolations(config, held_out: np.ndarray, num_rows: int = 6, num_points: int = 8) -> Callable[..., Arrays]:
    """between(params, *, seed): images along the arc from one latent to another, [rows, points, H, W, C] uint8.

    "samples": between draws of the prior, each point revised on the energy. "reconstructions": between the revised
    latents of two held-out images, with those images at the ends. Every point is decoded in the first place of a group
    that is otherwise prior draws, so that batch statistics are those of samples and no point depends on another.
    """
    config = at_test_time(config)
    nets = models.build(config)
    size, dtype = group_size(config), param_dtype(config)
    x = held_out[np.resize(subset(len(held_out), size), size)]
    rows = min(num_rows, size // 2) or 1

    @jax.jit
    def run(params, key, x):
        x = to_float(x, dtype)
        energy = nets.energy.bind(params.energy)
        encode = nets.encoder.bind(params.encoder)
        apply = nets.generator.bind(params.generator)
        *keys, revision_key = jax.random.split(key, 4)
        prior_keys, other_keys, data_keys = (chain_keys(k, jnp.arange(size)) for k in keys)
        prior, others = (normal(k, (config.generator.latent_dim,), dtype) for k in (prior_keys, other_keys))
        decode = lambda z: jax.lax.map(lambda one: apply(jnp.concatenate([one[None], others[1:]]))[0], z)
        inferred = sampling.infer(data_keys, encode, apply, x, **data_settings(config)).z

        def line(z):
            ends = z[jnp.arange(2 * rows) % size].reshape(2, rows, -1)
            points = slerp(*ends, jnp.linspace(0, 1, num_points, dtype=dtype))
            return decode(points.reshape(rows * num_points, -1))

        generated = line(prior)
        point_keys = chain_keys(revision_key, jnp.arange(len(generated)))
        revised, _ = sampling.revise_x(point_keys, energy, generated, **chain_settings(config))
        return revised, line(inferred)

    def between(params, *, seed: int) -> Arrays:
        key = jax.random.fold_in(jax.random.key(seed), _INTERPOLATION_STREAM)
        samples, decoded = (
            to_uint8(y).reshape(rows, num_points, *y.shape[1:]) for y in jax.device_get(run(params, key, x))
        )
        ends = x[np.arange(2 * rows) % size].reshape(2, rows, 1, *x.shape[1:])
        return {"samples": samples, "reconstructions": np.concatenate([ends[0], decoded, ends[1]], axis=1)}

    return between


def slerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Points at t [K] of the arc from a to b [B, d], whose length also goes evenly from |a| to |b|: [B, K, d].

    Points on a chord between prior draws would be nearer to 0 than the prior is.
    """
    length = lambda z: jnp.linalg.norm(z, axis=-1, keepdims=True)
    unit_a, unit_b = a / length(a), b / length(b)
    angle = jnp.arccos(jnp.clip(jnp.sum(unit_a * unit_b, -1, keepdims=True), -0.9999, 0.9999))[:, None]
    t = t[:, None]
    direction = (jnp.sin((1 - t) * angle) * unit_a[:, None] + jnp.sin(t * angle) * unit_b[:, None]) / jnp.sin(angle)
    return direction * ((1 - t) * length(a)[:, None] + t * length(b)[:, None])


_STREAM, _INTERPOLATION_STREAM = 2024, 2027
"""Keep this randomness apart from that of training and of samples of the same seed."""
