"""Tests for `models/confinement.py`, the term that keeps chains near the range of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax import config_check, models
from dualmcmc_jax.core import samplers
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.models.confinement import confined

WEIGHT = 0.7


def test_term_is_the_squared_distance_from_the_range_of_pixels():
    """The shape of a batch of images does not matter, and neither does the energy that the term is added to."""
    x = jnp.array([[[0.3, -1.0], [1.0, -0.2]], [[1.5, -3.0], [0.0, 1.0]]])
    energy = confined(lambda params: lambda x: params * x.sum((1, 2)), WEIGHT)(2.0)
    np.testing.assert_allclose(energy(x), [2 * 0.1, 2 * -0.5 + WEIGHT * (0.5**2 + 2**2)], rtol=1e-12)
    score = jax.grad(lambda x: energy(x).sum())(x)
    np.testing.assert_allclose(score[0], 2.0)
    np.testing.assert_allclose(score[1], [[2 + 2 * WEIGHT * 0.5, 2 - 2 * WEIGHT * 2], [2, 2]], rtol=1e-12)


def test_networks_of_a_config_have_the_term():
    config = tiny.config(train__compute_dtype="float64")
    plain = models.build(config).energy
    config.energy.confinement = WEIGHT
    net, params = models.build(config).energy, plain.init(jax.random.key(0))
    inside = np.random.RandomState(0).uniform(-1, 1, (3, 8, 8, 1))
    np.testing.assert_array_equal(net.apply(params, inside), plain.apply(params, inside))
    outside = inside + np.where(np.arange(64).reshape(8, 8, 1) < 2, 4.0, 0.0)
    expected = WEIGHT * np.square(inside.reshape(3, -1)[:, :2] + 3).sum(1)
    np.testing.assert_allclose(net.apply(params, outside) - plain.apply(params, outside), expected, rtol=1e-9)


def test_long_chains_stay_near_the_range_and_have_gaussian_tails():
    """Without a network, the density is uniform in [-1, 1] with tails of variance T / (2 weight)."""
    temperature, num_chains = 0.1, 4000
    energy = confined(lambda params: lambda x: jnp.zeros(len(x)), WEIGHT)(())
    keys, x0 = chain_keys(jax.random.key(0), jnp.arange(num_chains)), jnp.zeros((num_chains, 1))
    step = {"num_steps": 400, "step_size": 0.02}
    x, _ = samplers.SAMPLERS["mala"].kernel(keys, x0, lambda x: -energy(x) / temperature, **step)
    std = (temperature / (2 * WEIGHT)) ** 0.5
    tail = np.sqrt(2 * np.pi) * std  # the mass of both tails, relative to the density inside
    outside = float((abs(x) > 1).mean())
    assert outside == pytest.approx(tail / (2 + tail), abs=0.03)


@pytest.mark.parametrize(("field", "value"), [("data.shape", (64,)), ("energy.kind", "quadratic")])
def test_vectors_and_gaussian_energies_are_refused(field, value):
    config = tiny.config(energy__confinement=1.0, energy__spectral_norm=False)
    config.update_from_flattened_dict({field: value})
    if value == "quadratic":
        config.energy.widths = ()
    with pytest.raises(ValueError, match=r"energy.confinement: found 1.0 with .*, expected 0, or images and"):
        config_check.check(config)
