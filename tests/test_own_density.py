"""Chains on a density of one's own: their draws, their diagnostics and the checks of the arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dualmcmc_jax

SCALES = np.array([1.0, 3.0])


def log_density(x):
    return -0.5 * jnp.sum((x / SCALES) ** 2, axis=-1)


def test_draws_and_diagnostics_of_a_gaussian():
    """For a Gaussian with independent coordinates, the mean norm of the score is that of N(0, diag 1 / scales^2)."""
    x0 = 5 * jax.random.normal(jax.random.key(1), (40, 2), jnp.float64)
    settings = {"sampler": "hmc", "num_leapfrog_steps": 4, "step_size": 0.4}
    x, found = dualmcmc_jax.sample(jax.random.key(0), log_density, x0, num_steps=500, **settings)
    np.testing.assert_array_equal(x, found.draws[-1])
    assert found.draws.shape == (250, 40, 2)
    np.testing.assert_allclose(found.coordinates.mean, found.draws.mean((0, 1)))
    np.testing.assert_allclose(found.coordinates.std, SCALES, rtol=0.05)
    np.testing.assert_allclose(found.coordinates.high, 1.645 * SCALES, rtol=0.1)
    assert (found.coordinates.r_hat < 1.02).all()
    assert (found.coordinates.effective_sample_size > 500).all()
    error = 4 * SCALES / found.coordinates.effective_sample_size**0.5
    assert (abs(found.coordinates.mean) < error).all()
    assert found.log_density.mean == pytest.approx(-1, abs=0.1)  # -D / 2
    score = np.random.RandomState(0).normal(size=(100_000, 2)) / SCALES
    assert found.score_norm.mean() == pytest.approx(np.linalg.norm(score, axis=1).mean(), rel=0.05)
    assert 0.5 < found.acceptance < 0.99
    first, acceptance, norm, header, *rows = str(found).splitlines()
    assert first == "40 chains of 500 steps by 'hmc', 250 of warm-up"
    assert acceptance == f"mean acceptance probability: {found.acceptance:.3f}"
    assert norm.startswith("mean norm of the score: ")
    assert header == ""
    assert rows[0].split() == ["10,000", "draws", "mean", "std", "5%", "95%", "ESS", "R-hat"]
    assert [row.split()[0] for row in rows[1:]] == ["log", "x[0]", "x[1]"]


def test_separate_modes_have_a_large_r_hat():
    """Chains in two modes that they do not leave. The annealed sampler goes on with Langevin steps."""
    x0 = jnp.where(jnp.arange(8)[:, None, None] < 4, -4.0, 4.0) * jnp.ones((8, 3, 4))
    modes = lambda x: -0.5 * jnp.sum((abs(x) - 4) ** 2, axis=(1, 2))
    settings = {"sampler": "annealed", "step_annealing": 2.0, "num_steps": 40, "step_size": 0.1, "keep_every": 2}
    _, found = dualmcmc_jax.sample(jax.random.key(0), modes, x0, warm_up=10, **settings)
    assert found.draws.shape == (15, 8, 3, 4)
    assert found.acceptance is None
    assert (found.coordinates.r_hat > 1.5).all()
    assert (found.coordinates.effective_sample_size < 20).all()
    lines = str(found).splitlines()
    assert lines[2] == "coordinates shown: the 10 of 12 with the largest R-hat"
    assert len(lines) == 4 + 2 + 10


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sampler": "mla"}, "sampler: found 'mla', expected one of .*; did you mean mala?"),
        ({"friction": 0.1}, "friction: found an unknown parameter, expected none for the sampler 'mala'"),
        ({"sampler": "hmc", "num_leapfrogs": 3}, "num_leapfrogs: found an unknown parameter, expected one of num_leap"),
        ({"step_size": -1.0}, "step_size: found -1.0, expected a positive number"),
        ({"num_steps": 5}, "num_steps: found 5, expected 6 or more, for 4 draws after the warm-up"),
        ({"warm_up": 101}, r"warm_up: found 101, expected 0 or more, and at most num_steps \(100\)"),
        ({"keep_every": 0}, "keep_every: found 0, expected 1 or more"),
        ({"x0": jnp.zeros(3)}, r"x0: found float64 of shape \(3,\), expected floats \[B, ...\]"),
        ({"x0": jnp.zeros((3, 2), int)}, "x0: found int64 of shape"),
        ({"log_density": lambda x: x}, r"log_density: found a result of shape \(3, 2\), expected \(3,\)"),
        ({"key": 0}, "key: found int, expected a PRNG key"),
    ],
)
def test_wrong_arguments_are_named(changed, message):
    arguments = {"key": jax.random.key(0), "log_density": log_density, "x0": jnp.zeros((3, 2))}
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        dualmcmc_jax.sample(**arguments | {"num_steps": 100, "step_size": 0.1} | changed)
