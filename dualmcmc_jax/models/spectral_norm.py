"""Spectral normalization as a transformation of parameters: each kernel is divided by its largest singular value.

A kernel [..., I, O] is reshaped to a matrix W [K, O], where K is the product of all axes but the last. Its largest
singular value is estimated by sigma = v^T W u. The vectors u and v are part of the train state, and each update
improves them by one power iteration. The authors' code makes a power iteration in every forward pass instead, and
therefore also in every step of the x-chain, as does `torch.nn.utils.spectral_norm` in training mode.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

Vectors = dict[str, tuple[jax.Array, jax.Array]]


def init_vectors(key: jax.Array, params: Any, *, num_iterations: int = 50) -> Vectors:
    """Estimate the singular vectors of all kernels for the largest singular value.

    Args:
      key: a PRNG key, from which the first u is drawn.
      params: the parameters of a network.
      num_iterations: number of power iterations.

    Returns:
      A dict from the path of each kernel, such as "block0/conv1/kernel", to its vectors (u [O], v [K]).
    """
    kernels = {path: w for path, w in flatten_dict(params, sep="/").items() if path.endswith("kernel")}
    vectors = {}
    for i, (path, w) in enumerate(kernels.items()):
        u = jax.random.normal(jax.random.fold_in(key, i), w.shape[-1:], w.dtype)
        vectors[path] = (u, jnp.zeros(w.size // w.shape[-1], w.dtype))
    return jax.lax.fori_loop(0, num_iterations, lambda _, v: power_iterate(params, v), vectors)


def power_iterate(params: Any, vectors: Vectors) -> Vectors:
    """Make one power iteration for each kernel: v <- W u / |W u|, then u <- W^T v / |W^T v|.

    Args:
      params: the parameters of the network.
      vectors: the current vectors, from `init_vectors`.

    Returns:
      The new vectors.
    """
    kernels = flatten_dict(params, sep="/")
    new = {}
    for path, (u, _) in vectors.items():
        matrix = _matrix(kernels[path])
        v = _unit(_product(matrix, u))
        new[path] = (_unit(_product(v, matrix)), v)
    return new


def normalize(params: Any, vectors: Vectors) -> Any:
    """Divide each kernel by its estimated largest singular value sigma = v^T W u.

    The gradient passes through sigma, with u and v held constant.

    Args:
      params: the parameters of the network.
      vectors: the vectors of the kernels to normalize. Kernels without vectors stay as they are.

    Returns:
      The normalized parameters.
    """
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
