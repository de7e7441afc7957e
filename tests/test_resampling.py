"""Resampling of the initial states of x-chains, compared with closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import multivariate_normal

from dualmcmc_jax.core import resampling
from dualmcmc_jax.core.langevin import chain_keys

# A linear Gaussian model in two dimensions with one latent. The EBM is N(0, C) up to its normalizer.
W, S0 = np.array([0.8, -0.3]), 0.8
C = np.array([[1.5, 0.4], [0.4, 0.7]])
LOG_Z = 0.5 * np.linalg.slogdet(2 * np.pi * C)[1]
SLOPE, OFFSET, VARIANCE = np.array([0.5, 0.2]), 0.1, 0.6
TEMPERATURE = 0.7


def energy(x, covariance=C):
    return TEMPERATURE * 0.5 * jnp.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)


def decode(z):
    return z * W


def encode(x):
    mean = x @ SLOPE[:, None] + OFFSET
    return mean, jnp.full_like(mean, np.log(VARIANCE))


def exact_encode(x):
    """Return the exact posterior of the generator with variance S0^2."""
    variance = 1 / (1 + W @ W / S0**2)
    mean = x @ (variance * W / S0**2)[:, None]
    return mean, jnp.full_like(mean, np.log(variance))


def settings(**changes):
    return resampling.Resampling(**{"least_share": 0.5, "num_proposals": 5, "num_broad": 0, "broad_std": 1.7} | changes)


def propose(num, settings, encode=encode, seed=0):
    keys = chain_keys(jax.random.key(seed), jnp.arange(num))
    drawn = resampling.propose(keys, decode, encode, latent_dim=1, start_std=S0, settings=settings, dtype=jnp.float64)
    return [a.reshape(-1, a.shape[-1]) for a in drawn]


def log_weights(x0, z, generated, settings, energy=energy, encode=encode):
    share = settings.num_broad / settings.num_proposals
    scales = {"temperature": TEMPERATURE, "start_std": S0, "broad_share": share, "broad_std": settings.broad_std}
    return resampling.log_weights(x0, z, generated, energy, encode, **scales)


@pytest.mark.parametrize("num_broad", [0, 2])
def test_weights_equal_the_ratio_of_the_joint_densities(num_broad):
    how = settings(num_broad=num_broad)
    x0, z, generated = propose(20, how)
    np.testing.assert_allclose(generated, z * W, rtol=1e-14)
    target = multivariate_normal(np.zeros(2), C)
    q = [multivariate_normal(x @ SLOPE + OFFSET, VARIANCE + 1e-6).logpdf(v[0]) for x, v in zip(x0, z, strict=True)]
    p = [
        multivariate_normal(0, 1).logpdf(v[0]) + multivariate_normal(v * W, S0**2 * np.eye(2)).logpdf(x)
        for x, v in zip(x0, z, strict=True)
    ]
    broad = multivariate_normal(np.zeros(2), how.broad_std**2 * np.eye(2)).logpdf(x0) + q
    share = num_broad / 5
    mixture = np.log((1 - share) * np.exp(p) + share * np.exp(broad))
    expected = target.logpdf(x0) + LOG_Z + q - mixture
    np.testing.assert_allclose(log_weights(x0, z, generated, how), expected, rtol=1e-10)


@pytest.mark.parametrize("num_broad", [0, 2])
def test_mean_weight_is_the_partition_function(num_broad):
    how = settings(num_broad=num_broad)
    weights = np.exp(log_weights(*propose(20_000, how), how))
    error = weights.std() / np.sqrt(len(weights))
    assert error < 0.03
    assert abs(weights.mean() - np.exp(LOG_Z)) < 4 * error


def test_weights_are_equal_if_the_proposal_is_the_target():
    how = settings(num_broad=1)
    covariance = np.outer(W, W) + S0**2 * np.eye(2)
    from_generator = settings()
    drawn = propose(50, from_generator, exact_encode)
    log_w = log_weights(*drawn, from_generator, lambda x: energy(x, covariance), exact_encode)
    assert np.ptp(log_w) < 1e-4
    assert resampling.tempered_power(log_w, 250 * 0.999) == 1
    broad = log_weights(*propose(50, how, exact_encode), how, lambda x: energy(x, covariance), exact_encode)
    assert np.ptp(broad) > 0.1


@pytest.mark.parametrize(("weights", "expected"), [([3.0] * 7, 7), ([1, 0, 0], 1), ([1, 2, 3], 36 / 14)])
def test_effective_sample_size(weights, expected):
    size = resampling.effective_sample_size(jnp.log(jnp.array(weights, jnp.float64)) + 800)
    np.testing.assert_allclose(size, expected, rtol=1e-12)


def test_power_gives_the_least_effective_sample_size():
    log_w = 10 * jax.random.normal(jax.random.key(0), (300,), jnp.float64)
    power = resampling.tempered_power(log_w, 100.0)
    weights = lambda beta: np.exp(beta * np.asarray(log_w))
    size = lambda beta: weights(beta).sum() ** 2 / (weights(beta) ** 2).sum()
    np.testing.assert_allclose(power, brentq(lambda beta: size(beta) - 100, 0, 1), atol=2e-6)
    assert size(float(power)) >= 100
    assert np.isnan(resampling.tempered_power(log_w.at[7].set(jnp.nan), 100.0))
    assert resampling.tempered_power(log_w, float(size(1)) * 0.999) == 1


def test_weights_of_zero_are_never_chosen():
    log_w = jnp.array([-jnp.inf, 0.0, -jnp.inf, 1.0])
    for power in (0.0, 0.3, 1.0):
        assert set(map(int, resampling.systematic(0.5, resampling.tempered(log_w, power), 50))) == {1, 3}
    assert resampling.tempered_power(log_w, 3.0) == 0


@pytest.mark.parametrize("seed", range(3))
def test_systematic_draws_each_item_as_often_as_its_weight(seed):
    log_w = 2 * jax.random.normal(jax.random.key(seed), (40,), jnp.float64) - 700
    expected = 100 * np.asarray(jax.nn.softmax(log_w))
    draws = jax.vmap(lambda u: resampling.systematic(u, log_w, 100))((jnp.arange(1000) + 0.5) / 1000)
    counts = np.stack([np.bincount(draw, minlength=40) for draw in draws])
    assert np.all((counts >= np.floor(expected - 1e-9)) & (counts <= np.ceil(expected + 1e-9)))
    np.testing.assert_allclose(counts.mean(0), expected, atol=2e-3)


@pytest.mark.parametrize("num_broad", [0, 2])
def test_resampled_states_have_the_moments_of_the_target(num_broad):
    """At beta = 1 the states have the covariance of the EBM, and the latents have the moments of q(z | x)."""
    keys, how = chain_keys(jax.random.key(3), jnp.arange(40_000)), settings(least_share=0.1, num_broad=num_broad)
    starts = resampling.resample(
        keys, decode, energy, encode, how, temperature=TEMPERATURE, latent_dim=1, start_std=S0, dtype=jnp.float64
    )
    assert starts.power == 1
    assert 0.1 < starts.effective_share < 5
    error = 4 / np.sqrt(40_000 * min(1, float(starts.effective_share)))
    np.testing.assert_allclose(np.cov(starts.x.T), C, atol=2 * error)
    residual = starts.z[:, 0] - starts.x @ SLOPE - OFFSET
    np.testing.assert_allclose((residual.mean(), residual.var()), (0, VARIANCE), atol=error)
    assert bool(starts.from_prior.all()) == (num_broad == 0)
    np.testing.assert_array_equal(starts.generated, starts.z * W)


def network(params, x):
    """Return the energy of a two-dimensional EBM at temperature 1 with two unequal modes."""
    hidden = jnp.tanh(x @ params["weight"] + params["bias"])
    return 0.3 * jnp.sum(x**2, axis=-1) + hidden @ params["out"]


def negative_phase(num_batches, how):
    """Estimate E[d energy / d params] under the EBM from resampled states.

    Return the estimate of each batch, the value by quadrature, and the power of each batch.
    """
    params = {
        "weight": jnp.array([[1.5, -0.7, 0.4], [0.3, 1.1, -1.6]]),
        "bias": jnp.array([0.2, -0.4, 0.1]),
        "out": jnp.array([1.2, -0.9, 0.8]),
    }
    gradient = lambda x: jax.vmap(jax.grad(lambda p, x: network(p, x[None])[0]), (None, 0))(params, x)
    flat = lambda x: jnp.concatenate([leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(gradient(x))], axis=-1)
    side = np.linspace(-10, 10, 400)
    cells = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    truth = jax.nn.softmax(-network(params, cells)) @ flat(jnp.asarray(cells))

    @jax.jit
    @jax.vmap
    def estimate(seed):
        keys = chain_keys(jax.random.key(seed), jnp.arange(64))
        scales = {"temperature": 1.0, "latent_dim": 1, "start_std": 0.8, "dtype": jnp.float64}
        starts = resampling.resample(keys, decode, lambda x: network(params, x), encode, how, **scales)
        return flat(starts.x).mean(0), starts.power

    estimates, power = estimate(jnp.arange(num_batches))
    return np.asarray(estimates), np.asarray(truth), np.asarray(power)


def deviation(estimates, truth):
    """Return the largest deviation of the mean estimate, in standard errors."""
    return np.max(abs(estimates.mean(0) - truth) / (estimates.std(0) / np.sqrt(len(estimates))))


@pytest.mark.parametrize("mistake", [None, "no encoder", "sign of the encoder", "no prior", "share of broad proposals"])
def test_negative_phase_of_the_gradient_equals_quadrature(mistake, monkeypatch):
    right = resampling.log_weights

    def wrong(x0, z, generated, energy, encode, **scales):
        log_q = resampling.densities.log_posterior(z, *encode(x0))
        if mistake == "share of broad proposals":
            return right(x0, z, generated, energy, encode, **scales | {"broad_share": 0.1})
        error = {"no encoder": -log_q, "sign of the encoder": -2 * log_q}
        return right(x0, z, generated, energy, encode, **scales) + (
            resampling.densities.log_prior(z) if mistake == "no prior" else error[mistake]
        )

    if mistake:
        monkeypatch.setattr(resampling, "log_weights", wrong)
    how = settings(least_share=0.02, num_proposals=10, num_broad=5, broad_std=2.0)
    estimates, truth, power = negative_phase(2000, how)
    error = deviation(estimates, truth)
    if mistake:
        assert error > 6
    else:
        assert np.all(power == 1)
        assert error < 4
