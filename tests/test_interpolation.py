"""Arcs between latents, and images along these arcs."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax.data import batches, sources
from dualmcmc_jax.evaluation import interpolation

pytestmark = pytest.mark.slow


def test_arcs_have_equal_steps_and_the_right_ends():
    random = np.random.RandomState(0)
    a, b = random.normal(size=(2, 3, 50))
    points = interpolation.arc(a, b, jnp.linspace(0, 1, 5))
    np.testing.assert_allclose(points[:, 0], a, atol=1e-12)
    np.testing.assert_allclose(points[:, -1], b, atol=1e-12)
    length = np.linalg.norm(points, axis=-1)
    np.testing.assert_allclose(length[:, 2], (length[:, 0] + length[:, 4]) / 2, rtol=1e-12)
    cosine = lambda u, v: np.sum(u * v, -1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
    np.testing.assert_allclose(cosine(points[:, 1], points[:, 2]), cosine(points[:, 3], points[:, 4]), rtol=1e-9)


def test_interpolation_rows_do_not_depend_on_each_other():
    config = tiny.coupled()
    model, held_out = tiny.model(config), sources.load(config.data).test
    few, many = (interpolation.interpolate(model, held_out, seed=0, num_rows=n)._asdict() for n in (2, 4))
    for name, ends in (("samples", 0), ("reconstructions", 1)):
        assert many[name].shape == (4, 8 + 2 * ends, 8, 8, 1)
        np.testing.assert_array_equal(few[name][:, ends], many[name][:2, ends])
    first = held_out[batches.subset(len(held_out), 8)]
    np.testing.assert_array_equal(many["reconstructions"][:, 0], first[:4])
    np.testing.assert_array_equal(many["reconstructions"][:, -1], first[4:])
