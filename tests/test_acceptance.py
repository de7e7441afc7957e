"""The acceptance rate of Langevin steps, compared with the Metropolis rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualmcmc_jax.configs import default
from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import Trace, chain_keys, langevin
from dualmcmc_jax.evaluation import ground_truth_density
from dualmcmc_jax.metrics import acceptance


def test_acceptance_rate_follows_the_metropolis_rule():
    """Compare with the Metropolis rule in NumPy, on N(0, 1). For small steps, the rate is close to 1."""
    log_density = lambda x: -0.5 * densities.squared_norm(x)
    rates = {}
    for s in (0.5, 1e-4):
        x0 = jax.random.normal(jax.random.key(3), (2000, 2))
        keys = chain_keys(jax.random.key(0), jnp.arange(2000))
        _, trace = langevin(keys, x0, log_density, num_steps=5, step_size=s, keep_every=1)
        rates[s] = float(acceptance.rate(trace.states, log_density, step_size=s))
        x, y = (np.asarray(part, np.float64) for part in (trace.states[:-1], trace.states[1:]))
        log_pi = lambda x: -0.5 * np.sum(x**2, -1)
        log_move = lambda x, y, s=s: -np.sum((y - (1 - s) * x) ** 2, -1) / (4 * s)
        ratio = np.exp(log_pi(y) + log_move(y, x) - log_pi(x) - log_move(x, y))
        assert rates[s] == pytest.approx(np.minimum(1, ratio).mean(), rel=1e-6)
    assert 0.5 < rates[0.5] < 0.99
    assert rates[1e-4] > 0.999


def test_the_rate_of_an_evaluation_is_that_of_the_sampler():
    """Metropolis kernels report their own rate. Of the others, only Langevin steps are proposals that have a rate."""
    log_density, chain = lambda x: -0.5 * densities.squared_norm(x), default.get_config().x_chain
    states = jax.random.normal(jax.random.key(0), (4, 5, 2), jnp.float64)
    rate = lambda acceptance: ground_truth_density._rate(Trace(None, states, acceptance), log_density, chain)
    for sampler in ("mala", "hmc"):
        chain.sampler = sampler
        assert rate(jnp.array([[0.25, 0.75]])) == 0.5
    chain.update(sampler="langevin", step_size=0.1)
    assert rate(None) == acceptance.rate(states, log_density, step_size=0.1)
    for sampler in ("underdamped", "annealed"):
        chain.sampler = sampler
        assert rate(None) is None
