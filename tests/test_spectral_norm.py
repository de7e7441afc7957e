"""Spectral normalization, compared with NumPy's singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualmcmc_jax.models import spectral_norm

random = np.random.default_rng(2)
params = {
    "conv": {"kernel": jnp.asarray(random.normal(size=(3, 3, 4, 6)))},
    "linear": {"kernel": jnp.asarray(random.normal(size=(6, 1))), "bias": jnp.ones(1)},
}


@pytest.fixture(scope="module")
def vectors():
    return spectral_norm.init_vectors(jax.random.key(0), params, num_iterations=500)


def test_largest_singular_value_becomes_one(vectors):
    normalized = spectral_norm.normalize(params, vectors)
    for name in params:
        matrix = np.asarray(normalized[name]["kernel"]).reshape(-1, params[name]["kernel"].shape[-1])
        assert abs(np.linalg.svd(matrix, compute_uv=False)[0] - 1) < 1e-9
    np.testing.assert_array_equal(normalized["linear"]["bias"], params["linear"]["bias"])


def test_gradient_passes_through_sigma(vectors):
    """The gradient equals finite differences. W / sigma does not change if W is scaled, so it is orthogonal to W."""
    direction = jnp.asarray(random.normal(size=(3, 3, 4, 6)))

    def loss(kernel):
        changed = {**params, "conv": {"kernel": kernel}}
        return jnp.sum(spectral_norm.normalize(changed, vectors)["conv"]["kernel"] * direction)

    kernel = params["conv"]["kernel"]
    gradient = jax.grad(loss)(kernel)
    assert abs(jnp.sum(gradient * kernel)) < 1e-12 * jnp.linalg.norm(gradient.ravel()) * jnp.linalg.norm(kernel.ravel())
    step = 1e-6 * direction
    difference = (loss(kernel + step) - loss(kernel - step)) / 2
    np.testing.assert_allclose(jnp.sum(gradient * step), difference, rtol=1e-6)


def test_power_iteration_follows_its_formulas():
    start = spectral_norm.init_vectors(jax.random.key(1), params, num_iterations=1)
    u, _ = start["conv/kernel"]
    w = np.asarray(params["conv"]["kernel"]).reshape(-1, 6)
    v = w @ u / np.linalg.norm(w @ u)
    new_u, new_v = spectral_norm.power_iterate(params, start)["conv/kernel"]
    np.testing.assert_allclose(new_v, v, rtol=1e-12)
    np.testing.assert_allclose(new_u, w.T @ v / np.linalg.norm(w.T @ v), rtol=1e-12)


def test_normalize_without_vectors_changes_nothing():
    same = spectral_norm.normalize(params, {})
    jax.tree.map(np.testing.assert_array_equal, same, params)
