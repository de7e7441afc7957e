"""The table of objectives: default weights, the networks that each objective trains, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax import models
from dualmcmc_jax.configs import baselines
from dualmcmc_jax.core.langevin import chain_keys, normal
from dualmcmc_jax.core.sampling import infer, synthesize
from dualmcmc_jax.training import chains, objectives
from dualmcmc_jax.training.objectives import OBJECTIVES

NETWORKS = ("energy", "generator", "encoder")


def test_default_config_has_the_weights_of_the_table():
    loss = tiny.config().loss.to_dict()
    assert loss.pop("fresh_negatives") is False
    assert loss.pop("own")["function"] == ""
    assert loss == {name: row.weights for name, row in OBJECTIVES.items()}


def test_every_weight_trains_a_network():
    for name, row in OBJECTIVES.items():
        weights = {weight for names in row.trains.values() for weight in names}
        assert weights == set(row.weights), name
        assert row.trains.keys() <= set(NETWORKS), name


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, set(NETWORKS)),
        ({"loss__energy__data_weight": 0.0, "loss__energy__model_weight": 0.0}, {"generator", "encoder"}),
        ({"loss__encoder__data_weight": 0.0, "loss__encoder__model_weight": 0.0}, {"energy", "generator"}),
    ],
)
def test_networks_without_weights_are_not_trained(weights, expected):
    assert objectives.trained(tiny.config(**weights)) == expected


def test_single_objective_trains_its_networks():
    config = tiny.config()
    for name, row in OBJECTIVES.items():
        config.loss.update({other: dict.fromkeys(OBJECTIVES[other].weights, 0.0) for other in OBJECTIVES})
        config.loss[name].update(dict.fromkeys(row.weights, 1.0))
        assert objectives.trained(config) == set(row.trains), name
    config.loss.update({other: dict.fromkeys(OBJECTIVES[other].weights, 0.0) for other in OBJECTIVES})
    config.loss.generated.energy_weight = 1.0
    assert objectives.trained(config) == {"generator"}


def test_baselines_keep_penalties_only_if_they_train_the_energy():
    config = tiny.config(optimizer__energy__weight_decay=0.1)
    for penalty in objectives.PENALTIES:
        config.loss[penalty].weight = 1.0
    baselines.check_base(config)
    vae, cooperative = (baselines.changed(name, config) for name in ("vae", "cooperative"))
    assert objectives.trained(vae) == {"generator", "encoder"}
    assert vae.optimizer.energy.weight_decay == 0
    assert objectives.added(vae) == {"elbo"}
    assert objectives.added(cooperative) >= set(objectives.PENALTIES)
    config.loss.elbo.weight = 1.0
    with pytest.raises(ValueError, match="found the config of a baseline method"):
        baselines.check_base(config)


@pytest.fixture(scope="module")
def sampled():
    """Return a config in which all weights are nonzero, and its networks, parameters and samples."""
    config = tiny.config(train__batch_size=6)
    for i, (name, row) in enumerate(OBJECTIVES.items()):
        config.loss[name].update({weight: 0.3 + 0.1 * i for weight in row.weights})
    config.train.compute_dtype = "float64"
    nets = models.build(config)
    params = models.Params(*(net.init(jax.random.key(i)) for i, net in enumerate(nets)))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    keys = chain_keys(jax.random.key(5), jnp.arange(6))
    x = jnp.tanh(normal(chain_keys(jax.random.key(6), jnp.arange(6)), tuple(config.data.shape), jnp.float64))
    energy, decode, encode = (net.bind(p) for net, p in zip(nets, params, strict=True))
    model = synthesize(keys, decode, energy, **chains.synthesis(config, nets))
    data = infer(keys, encode, decode, x, **chains.inference(config, nets))
    return config, nets, params, objectives.Samples(x, model, data, normal(keys, (4,), jnp.float64))


def bind(nets, params):
    return objectives.Networks(*(net.bind(p) for net, p in zip(nets, params, strict=True)))


def test_joint_gradient_is_the_sum_over_objectives(sampled):
    """One backward pass through the sum equals the sum of one backward pass per objective and trained network."""
    config, nets, params, samples = sampled
    joint, metrics = objectives.gradients(
        NETWORKS, params, samples, bind=lambda params: bind(nets, params), config=config
    )
    separate = jax.tree.map(jnp.zeros_like, params._asdict())
    for name, row in OBJECTIVES.items():
        for network in row.trains:

            def loss(p, name=name, network=network, row=row):
                return row.loss(bind(nets, params._replace(**{network: p})), samples, config, **config.loss[name])[0]

            separate[network] = jax.tree.map(jnp.add, separate[network], jax.grad(loss)(getattr(params, network)))
        assert f"{name}_loss" in metrics
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), joint, separate)


def test_objective_does_not_train_other_networks(sampled):
    """The loss "generated" evaluates the energy on g(z), but does not add to the gradient of the energy."""
    config, nets, params, samples = sampled
    config = config.copy_and_resolve_references()
    for name in ("energy", *objectives.PENALTIES):
        config.loss[name].update(dict.fromkeys(OBJECTIVES[name].weights, 0.0))
    gradient, _ = objectives.gradients(NETWORKS, params, samples, bind=lambda params: bind(nets, params), config=config)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient["energy"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient["generator"]))


def test_objectives_with_equal_metric_names_are_refused(sampled, monkeypatch):
    config, nets, params, samples = sampled
    conflicting = OBJECTIVES["generator"]._replace(metrics=lambda terms, samples, config: {"energy_data": 0.0})
    monkeypatch.setitem(OBJECTIVES, "generator", conflicting)
    with pytest.raises(ValueError, match="objective generator: found the metric energy_data"):
        objectives.gradients(NETWORKS, params, samples, bind=lambda params: bind(nets, params), config=config)
