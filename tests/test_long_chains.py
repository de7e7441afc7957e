"""Long chains, compared with random walks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax.evaluation import long_chains
from dualmcmc_jax.model import Model

pytestmark = pytest.mark.slow


def test_long_chains_have_the_reported_length():
    """With a constant energy, chains are random walks whose variance after n steps is 2 s n."""
    config = tiny.coupled(x_chain__num_steps=5, evaluation__group_size=50)
    params = tiny.model(config).params
    params = params._replace(energy=jax.tree.map(jnp.zeros_like, params.energy))
    chains = long_chains.run(Model.create(config, params), seed=0)
    assert chains.steps == [5, 50, 500]
    assert chains.energy.shape == (501, 50)
    first, second, third = chains.states
    assert np.var(second - first) == pytest.approx(2 * 0.01 * 45, rel=0.1)
    assert np.var(third - first) == pytest.approx(2 * 0.01 * 495, rel=0.1)
