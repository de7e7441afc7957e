"""Products and mixtures of densities, compared with closed forms and with quadrature."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dualmcmc_jax
from dualmcmc_jax.configs import linear_gaussian
from dualmcmc_jax.metrics import quadrature
from dualmcmc_jax.model import Model
from dualmcmc_jax.models.build import Params
from dualmcmc_jax.training import state as train_state

CELLS = quadrature.grid(8.0, 200)
RING = lambda x: -((jnp.sqrt(jnp.sum(x**2, axis=-1) + 1e-9) - 2) ** 2) / 0.18  # radius 2, width 0.3
RIGHT = lambda x: -2 * jnp.logaddexp(0, -3 * x[:, 0])  # a soft constraint: x[0] > 0


@cache
def model(seed):
    """Return a model whose EBM is a Gaussian at temperature 0.5, and its mean and covariance."""
    config, random = linear_gaussian.get_config(), np.random.RandomState(seed)
    config.energy.temperature, config.train.compute_dtype = 0.5, "float64"
    fill = lambda leaf: random.normal(size=leaf.shape)
    params = Params(*jax.tree.map(fill, tuple(train_state.abstract(config).average)))
    a, b = np.eye(2) + 0.2 * random.normal(size=(2, 2)), random.normal(size=2)
    energy = {"out": {"kernel": a.T, "bias": b}}
    covariance = 0.5 * np.linalg.inv(a.T @ a)
    return Model.create(config, params._replace(energy=energy)), -np.linalg.solve(a, b), covariance


def log_gaussian(x, mean, covariance):
    """Return the normalized log-density of a Gaussian."""
    d = x - mean
    squares = np.sum(d @ np.linalg.inv(covariance) * d, axis=1)
    return -0.5 * squares - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]


def test_weighted_product_of_two_models_is_the_gaussian_of_their_precisions():
    """The precision is the weighted sum of the precisions, and likewise the precision times the mean."""
    (first, mean_1, cov_1), (second, mean_2, cov_2) = model(0), model(1)
    log_density = dualmcmc_jax.product(first, second.bound(), weights=(2.0, 0.5))
    precision_1, precision_2 = 2 * np.linalg.inv(cov_1), 0.5 * np.linalg.inv(cov_2)
    covariance = np.linalg.inv(precision_1 + precision_2)
    mean = covariance @ (precision_1 @ mean_1 + precision_2 @ mean_2)
    log_p = quadrature.normalized(log_density(CELLS.x), CELLS.area)
    near = np.linalg.norm(CELLS.x - mean, axis=1) < 3
    np.testing.assert_allclose(log_p[near], log_gaussian(CELLS.x[near], mean, covariance), atol=1e-4)


def test_mixture_of_two_models_has_the_shares_of_its_weights():
    """The energies are not normalized, and differ by a constant. With exact log Z, the mixture integrates to 1."""
    (first, mean_1, cov_1), (second, mean_2, cov_2) = model(0), model(1)
    shifted = lambda x: second.log_density(x) + 3.0
    log_z = [np.logaddexp.reduce(np.asarray(f(CELLS.x))) + np.log(CELLS.area) for f in (first.log_density, shifted)]
    log_density = dualmcmc_jax.mixture(first, shifted, log_partitions=log_z, weights=(3, 1))
    log_p = np.asarray(log_density(CELLS.x))
    parts = np.log(0.75) + log_gaussian(CELLS.x, mean_1, cov_1), np.log(0.25) + log_gaussian(CELLS.x, mean_2, cov_2)
    np.testing.assert_allclose(log_p, np.logaddexp(*parts), atol=1e-4)
    assert np.exp(log_p).sum() * CELLS.area == pytest.approx(1, abs=1e-6)


def test_chains_on_a_product_with_a_function_of_ones_own_agree_with_quadrature():
    log_density = dualmcmc_jax.product(RING, RIGHT)
    x0 = 2 * jax.random.normal(jax.random.key(0), (400, 2), jnp.float64)
    settings = {"sampler": "hmc", "num_leapfrog_steps": 4, "step_size": 0.03, "num_steps": 200}
    _, found = dualmcmc_jax.sample(jax.random.key(1), log_density, x0, **settings)
    p = np.exp(quadrature.normalized(log_density(jnp.asarray(CELLS.x)), CELLS.area)) * CELLS.area
    for statistic in (lambda x: x[..., 0], lambda x: x[..., 0] ** 2, lambda x: x[..., 1] ** 2, lambda x: x[..., 1]):
        per_chain = statistic(found.draws).mean(0)  # [400], independent
        error = per_chain.std() / 20
        assert abs(per_chain.mean() - p @ statistic(CELLS.x)) < 4 * error < 0.15
    assert p @ CELLS.x[:, 0] > 1  # the constraint matters


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dualmcmc_jax.product(), "densities: found none, expected 1 or more"),
        (lambda: dualmcmc_jax.product(RING, "digits"), "densities: found str, expected models or functions"),
        (lambda: dualmcmc_jax.product(RING, weights=(1, 2)), r"weights: found \[1.0, 2.0\], expected 1 finite numbers"),
        (lambda: dualmcmc_jax.product(RING, weights=1), "weights: found 1, expected 1 numbers, one per density"),
        (lambda: dualmcmc_jax.product(lambda x: x)(np.ones((3, 2))), r"densities: found a result of shape \(3, 2\)"),
        (lambda: dualmcmc_jax.mixture(RING, RING, log_partitions=None), "log_partitions: found None, expected 2"),
        (lambda: dualmcmc_jax.mixture(RING, log_partitions=[np.nan]), r"log_partitions: found \[nan\], expected 1 fin"),
        (lambda: dualmcmc_jax.mixture(RING, log_partitions=[0], weights=[0]), "weights: found 0.0, expected positive"),
        (
            lambda: dualmcmc_jax.product(model(0)[0], dualmcmc_jax.load("digits")),
            r"densities: found models of examples of the shapes \(2,\) and \(8, 8, 1\), expected equal shapes",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused_in_one_line(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()
