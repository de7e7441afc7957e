"""The trajectories of both chains."""

import pytest
import tiny

from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import trajectories

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("x_steps", "z_steps", "expected_x", "expected_z"),
    [(7, 3, [0, 3, 6, 7], [0, 1, 2, 3]), (100, 45, [0, 4, 8], [0, 3, 6])],
)
def test_trajectories_are_thinned(x_steps, z_steps, expected_x, expected_z):
    """Every third state of the x-chain and every state of the z-chain is kept, and fewer states of long chains."""
    config = tiny.config(x_chain__num_steps=x_steps, z_chain__num_steps=z_steps)
    model, held_out = tiny.model(config), sources.load(config.data).test
    x = trajectories.x_trajectory(model, seed=0)
    z = trajectories.z_trajectory(model, held_out, seed=0)
    assert list(x.steps)[: len(expected_x)] == expected_x
    assert list(z.steps)[: len(expected_z)] == expected_z
    assert len(x.states) == len(x.steps)
    assert len(z.states) == len(z.steps) == len(z.mse)
    assert len(x.energy) == x_steps
