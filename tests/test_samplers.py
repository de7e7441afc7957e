"""All rows of the table of samplers, compared with closed forms on Gaussian densities and with their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax.core import hmc
from dualmcmc_jax.core.annealed import annealed
from dualmcmc_jax.core.langevin import chain_keys, langevin, normal, summed
from dualmcmc_jax.core.mala import mala
from dualmcmc_jax.core.samplers import SAMPLERS, gradients_per_step
from dualmcmc_jax.core.underdamped import underdamped

MEAN, COVARIANCE = np.array([0.5, -1.0]), np.array([[1.0, 0.6], [0.6, 0.8]])
PRECISION, NUM = np.linalg.inv(COVARIANCE), 20_000


def keys(num, seed=0):
    return chain_keys(jax.random.key(seed), jnp.arange(num))


def gaussian(x):
    return -0.5 * jnp.einsum("ni,ij,nj->n", x - MEAN, PRECISION, x - MEAN)


def quartic(x):
    return -jnp.sum(x**4, axis=-1) + jnp.sin(x[:, 0])


def annealed_covariance(*, num_steps, step_size, step_annealing, temperature_annealing):
    """Return the covariance of annealed chains that start at exact draws: C <- A C A + 2 s I, A = I - s / tau P."""
    covariance = COVARIANCE
    for t in range(num_steps):
        to_go = 1 - t / (num_steps - 1)
        s, temperature = step_size * step_annealing**to_go, temperature_annealing**to_go
        decay = np.eye(2) - s / temperature * PRECISION
        covariance = decay @ covariance @ decay + 2 * s * np.eye(2)
    return covariance


UNADJUSTED = np.linalg.inv(PRECISION @ (np.eye(2) - 0.1 * PRECISION / 2))
ANNEALED = {"num_steps": 8, "step_size": 0.02, "step_annealing": 6.0, "temperature_annealing": 3.0}


@pytest.mark.parametrize(
    ("sampler", "settings", "covariance"),
    [
        ("langevin", {"num_steps": 40, "step_size": 0.1}, UNADJUSTED),
        ("mala", {"num_steps": 30, "step_size": 0.1}, COVARIANCE),
        ("hmc", {"num_steps": 10, "step_size": 0.1, "num_leapfrog_steps": 3}, COVARIANCE),
        ("underdamped", {"num_steps": 40, "step_size": 0.2, "friction": 0.5}, COVARIANCE),
        ("annealed", ANNEALED, annealed_covariance(**ANNEALED)),
    ],
)
def test_mean_and_covariance_equal_the_closed_form(sampler, settings, covariance):
    """Chains start at exact draws. The steps are so long that wrong ones, such as unadjusted Langevin, would fail.

    The stationary covariance is exact for Metropolis kernels, and for BAOAB on a Gaussian. For unadjusted Langevin, it
    is the inverse of P (I - s P / 2), where P is the precision. That of annealed chains follows a recursion.
    """
    start = normal(keys(NUM, 1), (2,), jnp.float64) @ np.linalg.cholesky(COVARIANCE).T + MEAN
    x = np.asarray(jax.jit(lambda x: SAMPLERS[sampler].kernel(keys(NUM), x, gaussian, **settings)[0])(start))
    np.testing.assert_array_less(abs(x.mean(0) - MEAN), 4 * np.sqrt(np.diag(covariance) / NUM))
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_array_less(abs(np.cov(x.T) - covariance), 4 * scale * np.sqrt(2 / NUM))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_kernels_keep_their_contract(sampler):
    """No steps return x0. The trace has the states, and the log-densities before the steps. Chains are independent."""
    num, kernel, is_metropolis = 4, SAMPLERS[sampler].kernel, SAMPLERS[sampler].is_metropolis
    x0 = jax.random.normal(jax.random.key(1), (num, 3), jnp.float64)
    settings = SAMPLERS[sampler].parameters | {"num_steps": 5, "step_size": 0.01, "keep_every": 2}

    @jax.jit
    def compute(keys, x0):
        run = lambda keys, x0, **changed: kernel(keys, x0, quartic, **settings | changed)
        return run(keys, x0), run(keys[1:3], x0[1:3], unroll=3)[0], run(keys, x0, num_steps=0)

    (x, trace), some, (same, empty) = compute(keys(num), x0)
    np.testing.assert_array_equal(trace.states[0], x0)
    np.testing.assert_array_equal(trace.states[-1], x)
    np.testing.assert_allclose(trace.log_density[::2], jax.vmap(quartic)(trace.states[:3]), rtol=1e-12)
    np.testing.assert_allclose(some, x[1:3], rtol=1e-12)
    np.testing.assert_array_equal(same, x0)
    assert (trace.states.shape, trace.log_density.shape, empty.log_density.shape) == ((4, num, 3), (5, num), (0, num))
    assert (trace.acceptance is not None) == is_metropolis
    if is_metropolis:
        assert trace.acceptance.shape == (5, num)
        assert ((trace.acceptance >= 0) & (trace.acceptance <= 1)).all()
    assert (x != x0).any()


def leapfrog(x, velocity, num_steps=7):
    """Return the end of leapfrog steps on a density that is not Gaussian, and the change of the total energy."""
    score_and_log_p = jax.grad(summed(quartic), has_aux=True)
    score, log_p = score_and_log_p(x)
    y, w, _, new_log_p = hmc.leapfrog(x, velocity, score, log_p, score_and_log_p, time_step=0.2, num_steps=num_steps)
    return y, w, log_p - new_log_p + (jnp.sum(w**2, -1) - jnp.sum(velocity**2, -1)) / 2


def test_leapfrog_is_reversible_and_preserves_volume():
    """From the end with reversed velocity, the path leads back. The log acceptance ratio then has the opposite sign."""
    x, velocity = jax.random.normal(jax.random.key(2), (2, 5, 3), jnp.float64)
    y, w, energy_change = leapfrog(x, velocity)
    back, reversed_velocity, energy_change_back = leapfrog(y, -w)
    np.testing.assert_allclose(back, x, rtol=1e-9)
    np.testing.assert_allclose(reversed_velocity, -velocity, rtol=1e-9)
    np.testing.assert_allclose(energy_change_back, -energy_change, atol=1e-9)
    assert np.abs(energy_change).max() > 0.1
    one = lambda state: jnp.concatenate(leapfrog(state[None, :3], state[None, 3:])[:2], axis=1)[0]
    jacobian = jax.jacfwd(one)(jnp.concatenate([x[0], velocity[0]]))
    assert np.linalg.det(jacobian) == pytest.approx(1, abs=1e-9)
    assert np.abs(jacobian - np.eye(6)).max() > 1


def test_hmc_with_one_leapfrog_step_is_mala():
    x0 = jax.random.normal(jax.random.key(3), (50, 2), jnp.float64)
    run = lambda kernel, **more: kernel(keys(50), x0, quartic, num_steps=4, step_size=0.1, **more)
    (x, trace), (expected, expected_trace) = run(hmc.hmc, num_leapfrog_steps=1), run(mala)
    np.testing.assert_allclose(x, expected, rtol=1e-9)
    np.testing.assert_allclose(trace.acceptance, expected_trace.acceptance, rtol=1e-9)
    assert 0.2 < trace.acceptance.mean() < 0.95


def test_acceptance_is_the_share_of_accepted_steps():
    x0, steps = jax.random.normal(jax.random.key(3), (500, 2), jnp.float64), 10
    _, trace = hmc.hmc(keys(500), x0, quartic, num_steps=steps, step_size=0.05, num_leapfrog_steps=3, keep_every=1)
    accepted = (trace.states[1:] != trace.states[:-1]).any(axis=-1)
    variance = (trace.acceptance * (1 - trace.acceptance)).sum()
    assert abs(accepted.sum() - trace.acceptance.sum()) < 4 * variance**0.5
    assert 0.5 < accepted.mean() < 0.98


def test_one_hmc_step_is_reversible():
    """From exact draws x of exp(-x^4), a step to y gives pairs (x, y) that are distributed like (y, x)."""
    random, num = np.random.RandomState(0), 100_000
    x = jnp.asarray((random.gamma(0.25, size=num) ** 0.25 * random.choice([-1, 1], num))[:, None])
    step = lambda x: hmc.hmc(keys(num), x, lambda x: -(x[:, 0] ** 4), num_steps=1, step_size=0.15, num_leapfrog_steps=3)
    y, trace = jax.jit(step)(x)
    assert 0.5 < trace.acceptance.mean() < 0.95
    x, y = np.asarray(x)[:, 0], np.asarray(y)[:, 0]
    for f, g in ((np.abs, lambda x: x**4), (lambda x: x > 0.5, lambda x: x**2), (np.cos, lambda x: x < -0.8)):
        difference = f(x) * g(y) - g(x) * f(y)
        assert abs(difference.mean()) < 4 * difference.std() / num**0.5


def test_underdamped_without_friction_is_leapfrog_and_with_much_averages_the_noise():
    """Much friction: x <- x + s grad log p(x) + sqrt(2 s) (n_t + n_(t+1)) / 2, but half of the drift in step 0."""
    num, steps, s = 3, 6, 0.02
    x0 = jax.random.normal(jax.random.key(4), (num, 3), jnp.float64)
    noise = [normal(jax.vmap(jax.random.fold_in, (0, None))(keys(num), t), (3,), x0.dtype) for t in range(steps + 1)]
    x, _ = underdamped(keys(num), x0, quartic, num_steps=7, step_size=0.02, friction=0.0)
    np.testing.assert_allclose(x, leapfrog(x0, noise[0], 7)[0], rtol=1e-9)

    x, _ = underdamped(keys(num), x0, quartic, num_steps=steps, step_size=s, friction=60.0)
    expected, score = x0, jax.grad(lambda x: quartic(x).sum())
    for t in range(steps):
        drift = s * score(expected) * (0.5 if t == 0 else 1)
        expected = expected + drift + np.sqrt(2 * s) * (noise[t] + noise[t + 1]) / 2
    np.testing.assert_allclose(x, expected, rtol=1e-9)


def test_annealed_without_annealing_is_langevin():
    x0 = jax.random.normal(jax.random.key(5), (3, 2), jnp.float64)
    run = lambda kernel, num_steps=4, **more: kernel(keys(3), x0, quartic, num_steps=num_steps, step_size=0.01, **more)[
        0
    ]
    x = run(annealed, step_annealing=1.0, temperature_annealing=1.0)
    np.testing.assert_allclose(x, run(langevin), rtol=1e-12)
    np.testing.assert_allclose(run(annealed, 1), run(langevin, 1), rtol=1e-12)


def test_each_sampler_counts_its_gradients():
    config = tiny.config(x_chain__num_leapfrog_steps=7)
    for sampler, expected in {"langevin": 1, "hmc": 7, "underdamped": 1}.items():
        config.x_chain.sampler = sampler
        assert gradients_per_step(config.x_chain) == expected
