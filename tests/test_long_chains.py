"""Long chains, compared with random walks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax.evaluation import long_chains
from dualmcmc_jax.metrics import chain_diagnostics
from dualmcmc_jax.model import Model


@pytest.mark.slow
def test_long_chains_have_the_reported_length():
    """With a constant energy, chains are random walks whose variance after n steps is 2 s n.

    The steps are annealed in the first training length only.
    """
    config = tiny.coupled(x_chain__num_steps=5, x_chain__sampler="annealed", evaluation__group_size=50)
    params = tiny.model(config).params
    params = params._replace(energy=jax.tree.map(jnp.zeros_like, params.energy))
    chains = long_chains.run(Model.create(config, params), seed=0)
    assert chains.steps == [5, 50, 500]
    assert chains.energy.shape == (501, 50)
    first, second, third = chains.states
    assert np.var(second - first) == pytest.approx(2 * 0.01 * 45, rel=0.1)
    assert np.var(third - first) == pytest.approx(2 * 0.01 * 495, rel=0.1)
    np.testing.assert_array_equal(chains.score_norm, 0)
    assert chains.projections.shape == (100, 50, 5)
    np.testing.assert_allclose(chains.projections[9], second.reshape(50, -1) @ long_chains._directions(64), rtol=1e-10)


def test_convergence_is_that_of_the_worst_projection():
    """Energies and one projection are independent draws. In the other projection, half of the chains are elsewhere."""
    random = np.random.RandomState(0)
    energy, projections = random.normal(size=(201, 10)), random.normal(size=(100, 10, 2))
    projections[:, 5:, 1] += 3
    chains = long_chains.LongChains([2, 20, 200], None, energy, None, projections)
    metrics = long_chains.convergence(chains)
    assert metrics["convergence/energy/num_draws"] == metrics["convergence/projections/num_draws"] == 900
    draws = energy[22::2]
    assert metrics["convergence/energy/r_hat"] == chain_diagnostics.r_hat(draws) < 1.01
    assert metrics["convergence/energy/effective_sample_size"] == chain_diagnostics.effective_sample_size(draws) > 700
    assert metrics["convergence/projections/r_hat"] > 1.5
    assert metrics["convergence/projections/effective_sample_size"] < 30


def test_projections_of_few_coordinates_are_the_coordinates():
    np.testing.assert_array_equal(long_chains._directions(3), np.eye(3))
    many = long_chains._directions(64)
    assert many.shape == (64, 5)
    np.testing.assert_allclose(np.linalg.norm(many, axis=0), 1)
    np.testing.assert_array_equal(many, long_chains._directions(64))
