"""The linear Gaussian problem: its closed-form solutions, checked independently, and training that reaches them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from dualmcmc_jax import models
from dualmcmc_jax.configs import linear_gaussian as config_linear_gaussian
from dualmcmc_jax.core import samplers
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.sampling import infer, synthesize
from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import linear_gaussian, suite
from dualmcmc_jax.model import Model
from dualmcmc_jax.models.build import Params
from dualmcmc_jax.runtime.parallel import AXIS
from dualmcmc_jax.training import chains, loop, optimizers
from dualmcmc_jax.training import state as train_state

pytestmark = pytest.mark.slow

ROWS = ("ebm_variance_1", "ebm_variance_2", "generator_weight", "encoder_slope", "encoder_variance")
NOISE = 0.25


def config_of(**fields):
    config = config_linear_gaussian.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def short_chains():
    """Return a config with short chains and model pairs, whose fixed point is far from maximum likelihood."""
    return config_of(
        x_chain__num_steps=20,
        x_chain__step_size=0.05,
        z_chain__num_steps=5,
        z_chain__step_size=0.01,
        loss__generator__model_weight=1.0,
        loss__encoder__model_weight=0.5,
        optimizer__decay=0.5,
        train__num_steps=3500,
    )


@pytest.fixture(scope="module")
def data():
    return sources.load(config_linear_gaussian.get_config().data).train


@pytest.fixture(scope="module")
def moments(data):
    x = data.astype(np.float64)
    return x.mean(0), np.cov(x.T, bias=True)


def params_of(solution):
    """Return the parameters of the networks that represent a solution, at temperature 1."""
    a = np.linalg.cholesky(np.linalg.inv(solution.covariance))  # the energy is |x A + b|^2 / 2
    heads = np.stack([solution.slope, np.zeros(2)], axis=-1)
    layer = lambda kernel, bias: {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return Params(
        {"out": layer(a, -solution.mean @ a)},
        {"mlp": {"out": layer(solution.weight[None], solution.bias)}},
        {"mlp": {"out": layer(heads, np.array([solution.intercept, np.log(solution.variance)]))}},
    )


def test_quadratic_energy_is_that_of_a_gaussian():
    """Differences of -energy / T equal those of the log-density. The initial A is the identity."""
    config = config_of(energy__temperature=0.3)
    nets = models.build(config)
    params = nets.energy.init(jax.random.key(0))
    np.testing.assert_array_equal(params["out"]["kernel"], np.eye(2))
    params = {"out": {"kernel": jnp.array([[1.0, 0.4], [-0.3, 2.0]]), "bias": jnp.array([0.7, -0.1])}}
    a, b = np.array(params["out"]["kernel"]).T, np.array(params["out"]["bias"])
    gaussian = stats.multivariate_normal(-np.linalg.solve(a, b), 0.3 * np.linalg.inv(a.T @ a))
    x = np.random.RandomState(0).normal(size=(20, 2))
    log_p, log_f = gaussian.logpdf(x), -nets.energy.apply(params, x) / 0.3
    np.testing.assert_allclose(log_f - log_f[0], log_p - log_p[0], atol=1e-10)
    assert nets.energy.textbook_multiply_adds == 2 * 2
    assert (nets.generator.textbook_multiply_adds, nets.encoder.textbook_multiply_adds) == (1 * 2, 2 * 2)


def test_maximum_likelihood_equals_numerical_optimum_and_bayes_rule(moments):
    """Compare the generator with a numerical optimum of the exact likelihood, and the posterior with Bayes' rule."""
    mean, covariance = moments
    best = linear_gaussian.maximum_likelihood(mean, covariance, variance=NOISE)

    def nats(w):
        model = np.outer(w, w) + NOISE * np.eye(2)
        return 0.5 * (np.trace(np.linalg.solve(model, covariance)) + np.linalg.slogdet(model)[1])

    optimum = optimize.minimize(nats, [0.3, -0.2], tol=1e-12).x
    optimum *= np.sign(optimum @ best.weight)
    np.testing.assert_allclose(best.weight, optimum, atol=1e-6)

    z = np.linspace(-6, 6, 20_001)
    x = np.array([1.1, -0.4])
    log_joint = -0.5 * z**2 - np.sum((x - mean - z[:, None] * best.weight) ** 2, axis=-1) / (2 * NOISE)
    p = np.exp(log_joint) / np.exp(log_joint).sum()
    assert best.slope @ x + best.intercept == pytest.approx(p @ z, abs=1e-8)
    assert best.variance == pytest.approx(p @ z**2 - (p @ z) ** 2, abs=1e-8)
    np.testing.assert_array_equal(best.covariance, covariance)
    # If the data vary less than the noise, the best generator does not depend on z.
    assert linear_gaussian.maximum_likelihood(mean, covariance / 20, variance=NOISE).variance == 1


@pytest.mark.parametrize(
    ("weights", "start_std"),
    [({}, 0.0), ({"energy": (1.2, 1.0), "generator": (0.5, 1.0), "encoder": (1.0, 2.0)}, 0.0), ({}, 0.4)],
)
def test_expected_gradients_vanish_at_the_fixed_point(weights, start_std, moments):
    """Sample 200,000 pairs with the models at the fixed point, and refit each model to the pairs.

    The refitted models equal the models at the fixed point. Least squares maximizes the likelihood exactly.
    """
    config, (mean, covariance) = short_chains(), moments
    for name, (data_weight, model_weight) in weights.items():
        config.loss[name].update(data_weight=data_weight, model_weight=model_weight)
    config.train.compute_dtype = "float64"
    config.x_chain.start_std = start_std
    solution = linear_gaussian.fixed_point(config, mean, covariance)
    nets, params, num = models.build(config), params_of(solution), 200_000
    decode, encode = nets.generator.bind(params.generator), nets.encoder.bind(params.encoder)
    energy = nets.energy.bind(params.energy)
    x = np.random.RandomState(0).normal(size=(num, 2))
    # The whitened samples have exactly the covariance I, so that x has exactly the covariance of the data.
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T, bias=True)), (x - x.mean(0)).T)
    x = mean + (np.linalg.cholesky(covariance) @ x).T

    @jax.jit
    def pairs(x):
        model_keys, data_keys = (chain_keys(jax.random.key(i), jnp.arange(num)) for i in (0, 1))
        model = synthesize(model_keys, decode, energy, **chains.synthesis(config, nets))
        return model.z, model.revised, infer(data_keys, encode, decode, x, **chains.inference(config, nets)).z

    z, revised, z_revised = map(np.asarray, pairs(x))
    weights_of = lambda name: (config.loss[name].data_weight, config.loss[name].model_weight)
    data_weight, model_weight = weights_of("energy")
    np.testing.assert_allclose(model_weight * np.cov(revised.T, bias=True), data_weight * covariance, atol=0.03)
    np.testing.assert_allclose(revised.mean(0), mean, atol=0.02)
    (weight,), _ = regress((z_revised, z), (x, revised), weights_of("generator"))
    np.testing.assert_allclose(weight, solution.weight, atol=0.01)
    slope, variance = regress((x, revised), (z_revised, z), weights_of("encoder"))
    np.testing.assert_allclose(slope[:, 0], solution.slope, atol=0.005)
    assert variance == pytest.approx(solution.variance, rel=0.01)


def regress(inputs, targets, weights):
    """Fit an affine map to weighted pairs of both kinds by least squares.

    Returns:
      The slopes [inputs, targets], and the weighted mean squared error.
    """
    rows = np.concatenate([np.column_stack([x, np.ones(len(x))]) for x in inputs])
    targets, weight = np.concatenate(targets), np.repeat(weights, len(inputs[0]))[:, None]
    solution = np.linalg.solve(rows.T @ (weight * rows), rows.T @ (weight * targets))
    return solution[:-1], np.sum(weight * (targets - rows @ solution) ** 2) / np.sum(weight)


def test_chains_from_exact_samples_of_the_generator_have_no_bias(moments):
    """Chains that start at exact samples of the best p(x | z) keep their distribution, however short they are."""
    config = config_of(x_chain__start_std=NOISE**0.5, x_chain__num_steps=20, x_chain__step_size=1e-3)
    config.z_chain.update(num_steps=100_000, step_size=1e-5)
    mean, _ = moments
    covariance = np.array([[2.0, 0.3], [0.3, NOISE + 0.09 / (2.0 - NOISE)]])  # w w^T + NOISE I
    solution = linear_gaussian.fixed_point(config, mean, covariance)
    best = linear_gaussian.maximum_likelihood(mean, covariance, variance=NOISE)
    np.testing.assert_allclose(solution.covariance, covariance, rtol=0.01)
    np.testing.assert_allclose(solution.weight, best.weight, rtol=0.01)


def test_fixed_point_is_none_where_it_does_not_exist(moments):
    """There is none if chains are too short, if steps are too long, or if a model is trained on model pairs alone.

    It is not known for other chains than unadjusted Langevin chains.
    Options that change the chain, the data or the losses have other fixed points, which are not computed.
    """
    configs = [
        config_of(x_chain__num_steps=2),
        config_of(x_chain__step_size=0.2),
        config_of(x_chain__init="noise"),
        config_of(z_chain__init="noise"),
        config_of(loss__encoder__data_weight=0.0),
        *(config_of(x_chain__sampler=sampler) for sampler in samplers.SAMPLERS if sampler != "langevin"),
        config_of(z_chain__sampler="hmc"),
        config_of(x_chain__clip_score=1e6),
        config_of(optimizer__energy__weight_decay=1e-6),
        config_of(data__noise_std=1e-6),
        config_of(loss__gradient_penalty__weight=1e-6),
    ]
    assert [linear_gaussian.fixed_point(config, *moments) for config in configs] == [None] * len(configs)


def test_learned_metrics_are_computed_from_the_parameters(data, moments):
    """Parameters at the fixed point have the metrics of the fixed point, also with the signs of the latents flipped."""
    config, (mean, covariance) = short_chains(), moments
    fixed_point = linear_gaussian.fixed_point(config, mean, covariance)
    mirrored = fixed_point._replace(
        weight=-fixed_point.weight, slope=-fixed_point.slope, intercept=-fixed_point.intercept
    )
    for solution in (fixed_point, mirrored):
        metrics = linear_gaussian.compare(Model.create(config, params_of(solution)), data)
        for row in (*ROWS, "kl_ebm", "kl_generator", "kl_encoder"):
            expected = metrics[f"linear/fixed_point/{row}"]
            assert metrics[f"linear/learned/{row}"] == pytest.approx(expected, rel=1e-4), row
    (block,) = suite.blocks(metrics)
    assert block.table.columns == ["learned", "fixed point", "maximum likelihood"]
    best = linear_gaussian.maximum_likelihood(mean, covariance, variance=NOISE)
    for value in linear_gaussian.divergences(best, best, mean, covariance, variance=NOISE).values():
        assert value == pytest.approx(0, abs=1e-12)


def test_divergences_equal_means_over_samples(moments):
    """Compare with means of log-ratios over samples."""
    mean, covariance = moments
    best = linear_gaussian.maximum_likelihood(mean, covariance, variance=NOISE)
    other = linear_gaussian.fixed_point(short_chains(), mean, covariance)
    other = other._replace(mean=other.mean + 0.3, bias=other.bias - 0.2, intercept=other.intercept + 0.4)
    divergences = linear_gaussian.divergences(other, best, mean, covariance, variance=NOISE)

    random = np.random.RandomState(0)
    normal = stats.multivariate_normal
    marginal = lambda model: normal(model.bias, np.outer(model.weight, model.weight) + NOISE * np.eye(2))
    for name, p, q in (
        ("kl_ebm", normal(best.mean, best.covariance), normal(other.mean, other.covariance)),
        ("kl_generator", marginal(best), marginal(other)),
    ):
        x = p.rvs(200_000, random)
        assert divergences[name] == pytest.approx(np.mean(p.logpdf(x) - q.logpdf(x)), rel=0.02)
    x = random.multivariate_normal(mean, covariance, 200_000)
    p, q = (stats.norm(x @ model.slope + model.intercept, model.variance**0.5) for model in (best, other))
    z = p.rvs(random_state=random)
    assert divergences["kl_encoder"] == pytest.approx(np.mean(p.logpdf(z) - q.logpdf(z)), rel=0.02)


def trained(config, data):
    """Return the "linear/..." metrics after training on one device in float32."""
    nets = models.build(config, axis_name=AXIS)
    optimizer = optimizers.build(config, steps_per_epoch=len(data) // config.train.batch_size)
    state = train_state.create(config, nets, optimizer)
    update = loop.compiled_step(config, nets, optimizer, jax.local_devices()[:1])
    share = loop.share_of_batch(config, data)
    for step in range(config.train.num_steps):
        state, _ = update(state, jax.tree.map(lambda part: part.reshape(1, -1, *part.shape[2:]), share(step)))
    return linear_gaussian.compare(Model.create(config, state.average), data)


def errors(metrics, column):
    """Return the relative errors of the learned metrics with respect to a column."""
    return {row: metrics[f"linear/learned/{row}"] / metrics[f"linear/{column}/{row}"] - 1 for row in ROWS}


QUICK = {
    "train__num_steps": 1200,
    "train__ema_decay": 0.995,
    "optimizer__decay": 0.5,
    "x_chain__num_steps": 120,
    "x_chain__step_size": 0.02,
}


@pytest.mark.more
@pytest.mark.parametrize(("fields", "bias", "largest"), [(QUICK, 0.05, 0.06), ({}, 0.025, 0.04)])
def test_training_ends_at_maximum_likelihood(fields, bias, largest, data):
    """The fixed point and the learned parameters differ from maximum likelihood by less than `bias` and `largest`."""
    metrics = trained(config_of(**fields), data)
    print(errors(metrics, "maximum_likelihood"), errors(metrics, "fixed_point"))
    for row, error in errors(metrics, "maximum_likelihood").items():
        assert abs(metrics[f"linear/fixed_point/{row}"] / metrics[f"linear/maximum_likelihood/{row}"] - 1) < bias, row
        assert abs(error) < largest, row
    for name in ("kl_ebm", "kl_generator", "kl_encoder"):
        assert metrics[f"linear/learned/{name}"] < 2e-3


@pytest.mark.slow
def test_training_ends_at_the_fixed_point_of_short_chains(data):
    """The fixed point is far from maximum likelihood, so that a missing loss term or chain step would be detected."""
    metrics = trained(short_chains(), data)
    print(errors(metrics, "fixed_point"))
    for row, error in errors(metrics, "fixed_point").items():
        assert abs(error) < 0.02, row
        assert abs(metrics[f"linear/fixed_point/{row}"] / metrics[f"linear/maximum_likelihood/{row}"] - 1) > 0.1, row
