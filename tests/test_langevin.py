"""Langevin dynamics, compared with closed forms and with its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualmcmc_jax.core import densities, sampling
from dualmcmc_jax.core.langevin import chain_keys, clipped, langevin, normal


def keys(num, seed=0):
    return chain_keys(jax.random.key(seed), jnp.arange(num))


@pytest.mark.parametrize(("variance", "step_size"), [(1.0, 0.5), (0.3, 0.1), (4.0, 1.0)])
def test_stationary_variance_equals_the_closed_form(variance, step_size):
    """On N(0, v), a step is x <- (1 - s/v) x + sqrt(2 s) noise. Its stationary variance is v / (1 - s / (2 v))."""
    num = 40_000
    exact = variance / (1 - step_size / (2 * variance))
    start = jnp.sqrt(variance) * normal(keys(num, 1), (1,), jnp.float64)
    x, _ = jax.jit(
        lambda x: langevin(keys(num), x, lambda x: -0.5 * (x[:, 0] ** 2) / variance, num_steps=60, step_size=step_size)
    )(start)
    standard_error = exact * np.sqrt(2 / num)
    assert abs(jnp.mean(x**2) - exact) < 4 * standard_error
    assert abs(jnp.mean(x)) < 4 * np.sqrt(exact / num)


def test_each_step_follows_the_equation():
    """Compare the chain, its trace and its kept states with a plain loop of x + s grad + sqrt(2 s) noise.

    The noise of step t is drawn with the key of the chain, folded with t.
    """
    num, steps, s = 3, 7, 0.05
    log_density = lambda x: -jnp.sum(x**4, axis=(1, 2)) + jnp.sum(jnp.sin(x), axis=(1, 2))
    x = x0 = jax.random.normal(jax.random.key(5), (num, 2, 3), jnp.float64)
    states, log_p = [x0], []
    for t in range(steps):
        log_p.append(log_density(x))
        score = -4 * x**3 + jnp.cos(x)
        noise = jnp.stack([jax.random.normal(jax.random.fold_in(k, t), (2, 3), jnp.float64) for k in keys(num)])
        x = x + s * score + jnp.sqrt(2 * s) * noise
        states.append(x)

    for every, kept in ((1, range(8)), (2, (0, 2, 4, 6, 7)), (3, (0, 3, 6, 7)), (7, (0, 7)), (20, (0, 7))):
        end, trace = langevin(keys(num), x0, log_density, num_steps=steps, step_size=s, keep_every=every)
        np.testing.assert_allclose(end, x, rtol=1e-12)
        np.testing.assert_allclose(trace.log_density, jnp.stack(log_p), rtol=1e-12)
        np.testing.assert_allclose(trace.states, jnp.stack([states[i] for i in kept]), rtol=1e-12)


def test_clipped_score_has_at_most_the_largest_norm():
    """For log p(x) = -|x|^2 / 2, the score is -x, or -c x / |x| if |x| > c. Each example is clipped by itself."""
    x = np.random.RandomState(0).normal(size=(5, 2, 3)) * np.array([0, 0.1, 0.4, 2, 9])[:, None, None]
    norm = np.linalg.norm(x.reshape(5, -1), axis=1)[:, None, None]
    assert np.sum(norm > 1.5) == 2
    clip = clipped(lambda x: -0.5 * densities.squared_norm(x), 1.5)
    score = jax.grad(lambda x: clip(x).sum())
    np.testing.assert_array_equal(clip(x), -0.5 * densities.squared_norm(x))
    np.testing.assert_allclose(score(x), -x * np.minimum(1, 1.5 / np.maximum(norm, 1e-9)), rtol=1e-14)
    assert not score(np.full((1, 2, 3), 1e200)).any()  # the norm overflows, and the example stays where it is
    assert np.isnan(score(np.full((1, 2, 3), np.nan))).all()  # the health check must notice


def test_clipped_step_of_the_x_chain_moves_by_step_size_times_the_norm():
    """One step from x, whose score -x / T is longer than c, ends at x - s c x / |x| + sqrt(2 s) noise."""
    s, c, temperature = 0.01, 50.0, 1e-3
    x = jnp.array([[3.0, 4.0], [0.3, -0.4], [0.003, 0.004]])
    run = lambda **clip: sampling.revise_x(
        keys(3), lambda x: 0.5 * densities.squared_norm(x), x, temperature=temperature, num_steps=1, step_size=s, **clip
    )[0]
    noise = np.sqrt(2 * s) * normal(jax.vmap(jax.random.fold_in, (0, None))(keys(3), 0), (2,), x.dtype)
    score = -np.array([[c], [c], [5.0]]) * np.array([0.6, 0.8]) * np.sign(x)  # that of the last example is not clipped
    np.testing.assert_allclose(run(clip_score=c), x + s * score + noise, rtol=1e-12)
    np.testing.assert_array_equal(run(clip_score=0.0), run())


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_trace_has_one_entry_per_step(steps):
    x0 = jnp.ones((2, 3))
    x, trace = langevin(keys(2), x0, lambda x: -jnp.sum(x**2, 1), num_steps=steps, step_size=0.1)
    assert trace.log_density.shape == (steps, 2)
    assert trace.states is None
    assert (steps == 0) == bool(jnp.all(x == x0))


def test_chain_depends_neither_on_unroll_nor_on_other_chains():
    x0 = jax.random.normal(jax.random.key(1), (6, 4), jnp.float64)
    run = lambda k, x, unroll=1: langevin(
        k, x, lambda x: -jnp.sum(x**4, 1), num_steps=9, step_size=0.01, unroll=unroll
    )[0]
    whole = run(keys(6), x0)
    np.testing.assert_allclose(run(keys(6), x0, 4), whole, rtol=1e-13)
    np.testing.assert_allclose(run(keys(6)[2:5], x0[2:5]), whole[2:5], rtol=1e-13)


def test_memory_does_not_grow_with_the_number_of_steps():
    def temporary_bytes(steps):
        run = lambda k, x: langevin(k, x, lambda x: -jnp.sum(x**4, 1), num_steps=steps, step_size=0.01)[0]
        return jax.jit(run).lower(keys(64), jnp.ones((64, 1000))).compile().memory_analysis().temp_size_in_bytes

    one_state = 64 * 1000 * 8
    assert temporary_bytes(3000) < temporary_bytes(30) + one_state / 2


def test_z_chain_samples_the_posterior_of_a_linear_generator():
    """For x = W z + noise, compare with the mean of the posterior, and with its covariance including the step bias."""
    num, d, s, variance = 20_000, 2, 0.005, 0.2
    weight = jnp.array([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.1]])  # [3, d]
    x = jnp.array([0.4, -1.0, 0.3])
    precision = np.eye(d) + weight.T @ weight / variance
    mean = np.linalg.solve(precision, weight.T @ x / variance)
    # For a Gaussian with this precision, the stationary covariance is (precision (I - s precision / 2))^-1.
    covariance = np.linalg.inv(precision @ (np.eye(d) - s * precision / 2))

    z, trace = jax.jit(
        lambda z: sampling.revise_z(
            keys(num), lambda z: z @ weight.T, jnp.tile(x, (num, 1)), z, variance=variance, num_steps=500, step_size=s
        )
    )(jnp.zeros((num, d)))
    assert trace.log_density.shape == (500, num)
    np.testing.assert_array_less(abs(z.mean(0) - mean), 4 * np.sqrt(np.diag(covariance) / num))
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_array_less(abs(np.cov(z.T) - covariance), 4 * scale * np.sqrt(2 / num))


def test_x_chain_samples_the_tempered_energy():
    """At temperature T, the density of the energy x^2 / 2 is N(0, T)."""
    num, temperature, s = 40_000, 0.25, 0.02
    x, _ = jax.jit(
        lambda x: sampling.revise_x(
            keys(num), lambda x: 0.5 * densities.squared_norm(x), x, temperature=temperature, num_steps=200, step_size=s
        )
    )(jnp.zeros((num, 1)))
    exact = temperature / (1 - s / (2 * temperature))
    assert abs(x.var() - exact) < 4 * exact * np.sqrt(2 / num)


@pytest.mark.parametrize("init", ["generator", "noise"])
def test_synthesize_starts_at_generator_or_noise(init):
    """Without steps, the x-chain stays at its start: g(z), or a sample of N(0, I) that does not depend on g."""
    num = 20_000
    drawn = sampling.synthesize(
        keys(num),
        lambda z: 3 * z + 1,
        lambda x: densities.squared_norm(x),
        latent_dim=2,
        init=init,
        dtype=jnp.float64,
        temperature=1.0,
        num_steps=0,
        step_size=0.1,
    )
    np.testing.assert_allclose(drawn.generated, 3 * drawn.z + 1)
    np.testing.assert_allclose(jnp.cov(drawn.z.T), np.eye(2), atol=0.05)
    if init == "generator":
        np.testing.assert_array_equal(drawn.revised, drawn.generated)
    else:
        np.testing.assert_allclose(jnp.cov(drawn.revised.T), np.eye(2), atol=0.05)
        assert abs(jnp.corrcoef(drawn.revised[:, 0], drawn.z[:, 0])[0, 1]) < 0.05


@pytest.mark.parametrize("init", ["encoder", "noise"])
def test_infer_starts_at_encoder_or_noise(init):
    """Without steps, the z-chain stays at its start: a sample of q(z | x) = N(x, 4), or of N(0, I)."""
    num = 20_000
    x = jnp.full((num, 1), 5.0)
    drawn = sampling.infer(
        keys(num),
        lambda x: (x, jnp.full_like(x, jnp.log(4.0))),
        lambda z: z,
        x,
        init=init,
        variance=1.0,
        num_steps=0,
        step_size=0.1,
    )
    mean, variance = (5, 4) if init == "encoder" else (0, 1)
    assert abs(drawn.start.mean() - mean) < 4 * np.sqrt(variance / num)
    assert abs(drawn.start.var() - variance) < 4 * variance * np.sqrt(2 / num)
    np.testing.assert_array_equal(drawn.z, drawn.start)
