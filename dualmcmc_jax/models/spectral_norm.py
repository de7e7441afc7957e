"""Spectral normalisation as a transformation of parameters.

A kernel [..., I, O] is the matrix W of shape [K, O], K the product of all but the last axis. Its largest singular value
is estimated as sigma = v^T W u from vectors that power iteration carries along from one update to the next.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

Vectors = dict[str, tuple[jax.Array, jax.Array]]


def init_vectors(key: jax.Array, params: Any, *, num_iterations: int = 50) -> Vectors:
    """{path: (u [O], v [K])} for every kernel in params, after num_iterations power iterations from a random u."""
    kernels = {path: w for path, w in flatten_dict(params, sep="/").items() if path.endswith("kernel")}
    vectors = {}
    for i, (path, w) in enumerate(kernels.items()):
        u = jax.random.normal(jax.random.fold_in(key, i), w.shape[-1:], w.dtype)
        vectors[path] = (u, jnp.zeros(w.size // w.shape[-1], w.dtype))
    return jax.lax.fori_loop(0, num_iterations, lambda _, v: power_iterate(params, v), vectors)


def power_iterate(params: Any, vectors: Vectors) -> Vectors:
    """One power iteration: v <- W u / |W u|, then u <- W^T v / |W^T v|."""
    kernels = flatten_dict(params, sep="/")
    new = {}
    for path, (u, _) in vectors.items():
        matrix = _matrix(kernels[path])
        v = _unit(_product(matrix, u))
        new[path] = (_unit(_product(v, matrix)), v)
    return new


def normalize(params: Any, vectors: Vectors) -> Any:
    """params with each kernel named in vectors divided by its sigma; the gradient passes through sigma."""
    kernels = flatten_dict(params, sep="/")
    for path, (u, v) in vectors.items():
        kernels[path] = kernels[path] / _product(v, _product(_matrix(kernels[path]), u))
    return unflatten_dict(kernels, sep="/")


def _matrix(kernel: jax.Array) -> jax.Array:
    return kernel.reshape(-1, kernel.shape[-1])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)
