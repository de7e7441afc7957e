"""Both residual networks, compared with numbers of the authors' code: outputs, chains, losses and all gradients."""

from functools import partial

import authors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dualmcmc_jax import models
from dualmcmc_jax.configs import celeba64, cifar10
from dualmcmc_jax.core import densities, langevin, losses, sampling
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.models.spectral_norm import normalize

pytestmark = pytest.mark.slow


class Case:
    """One reference file, with the networks, parameters and inputs that reproduce its numbers."""

    def __init__(self, name, dtype=jnp.float64):
        self.reference = authors.load(name)
        self.config = authors.config(name, self.reference)
        self.nets = models.build(self.config)
        cast = partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, dtype))
        self.params = cast(authors.params(self.reference, self.config))
        self.vectors = cast(authors.vectors(self.reference, self.config))
        self.x, self.x_model = (cast(authors.nhwc(self.reference[key])) for key in ("x", "x_model"))
        self.z, self.z_post = (cast(authors.latent(self.reference[key])) for key in ("z", "z_post"))
        self.keys = chain_keys(jax.random.key(0), jnp.arange(len(self.x)))

    def energy(self, params):
        return self.nets.energy.bind(normalize(params, self.vectors))

    def decode(self, params):
        return self.nets.generator.bind(params)

    def encode(self, params):
        return self.nets.encoder.bind(params)

    def losses(self, params):
        """Return the losses of Eq. 7, 10 and 15 on the samples of the reference."""
        pairs = (self.x, self.z_post), (self.x_model, self.z)
        weights = self.config.loss
        temperature = self.config.energy.temperature
        return (
            losses.energy_loss(
                self.energy(params.energy), self.x, self.x_model, temperature=temperature, **weights.energy
            )[0],
            losses.generator_loss(self.decode(params.generator), *pairs, **weights.generator)[0],
            losses.encoder_loss(self.encode(params.encoder), *pairs, **weights.encoder)[0],
        )


@pytest.fixture(scope="module", params=authors.NAMES)
def case(request):
    return Case(request.param)


# JAX derives gradients and chains from the networks, and the outputs of both networks are compared. The second network
# has no other operations than the first, and takes twice as long.
of_one_network = pytest.mark.parametrize(
    "case", ["cifar10", pytest.param("celeba64", marks=pytest.mark.more)], indirect=True
)


def relative_error(actual, expected, floor=0.0):
    """Return the norm of the difference, divided by the norm of `expected` or by `floor` if that is larger."""
    return np.linalg.norm(np.ravel(actual - expected)) / max(np.linalg.norm(np.ravel(expected)), floor)


def outputs(case):
    mean, log_var = case.encode(case.params.encoder)(case.x)
    return {
        "G_z": case.decode(case.params.generator)(case.z),
        "E_x": case.energy(case.params.energy)(case.x),
        "I_mu": mean,
        "I_log_var": log_var,
    } | dict(zip(("loss_energy", "loss_generator", "loss_encoder"), case.losses(case.params), strict=True))


def expected_outputs(reference):
    names = ("E_x", "I_mu", "I_log_var", "loss_energy", "loss_generator", "loss_encoder")
    return {"G_z": authors.nhwc(reference["G_z"])} | {name: reference[name] for name in names}


def test_outputs_and_losses(case):
    actual = jax.jit(lambda: outputs(case))()
    for name, expected in expected_outputs(case.reference).items():
        assert relative_error(actual[name], expected) < 1e-9, name


@pytest.mark.parametrize("name", ["cifar10", pytest.param("celeba64", marks=pytest.mark.more)])
def test_outputs_and_losses_in_float32(name):
    case = Case(name, jnp.float32)
    actual = jax.jit(lambda: outputs(case))()
    for name, expected in expected_outputs(case.reference).items():
        assert actual[name].dtype == jnp.float32
        assert relative_error(actual[name], expected) < 1e-4, name


@of_one_network
def test_gradients(case):
    total = lambda params: sum(case.losses(params))
    gradients = jax.jit(jax.grad(total))(case.params)
    for net, actual, expected in zip(
        gradients._fields, gradients, authors.params(case.reference, case.config, "grad/"), strict=True
    ):
        actual, expected = flatten_dict(actual, sep="/"), flatten_dict(expected, sep="/")
        assert actual.keys() == expected.keys()
        floor = 1e-3 * np.sqrt(sum(np.sum(g**2) for g in expected.values()))
        for path, gradient in expected.items():
            assert relative_error(actual[path], gradient, floor) < 1e-9, f"{net}/{path}"


@pytest.fixture
def noise_free(monkeypatch):
    monkeypatch.setattr(langevin, "normal", lambda keys, shape, dtype: jnp.zeros((len(keys), *shape), dtype))


@of_one_network
def test_x_chain(case, noise_free):
    start = jax.jit(case.decode(case.params.generator))(case.z)
    temperature = case.config.energy.temperature
    revise = partial(
        sampling.revise_x,
        energy=case.energy(case.params.energy),
        temperature=temperature,
        num_steps=case.config.x_chain.num_steps,
        step_size=case.config.x_chain.step_size,
    )
    end, trace = jax.jit(revise)(case.keys, x0=start)
    assert relative_error(-trace.log_density * temperature, case.reference["x_chain_energy"]) < 1e-9
    moved = authors.nhwc(case.reference["x_chain_last"]) - authors.nhwc(case.reference["G_z"])
    assert relative_error(end - start, moved) < 1e-7


@of_one_network
def test_z_chain(case, noise_free):
    start, _ = jax.jit(case.encode(case.params.encoder))(case.x)
    variance = case.config.generator.variance
    revise = partial(
        sampling.revise_z,
        decode=case.decode(case.params.generator),
        x=case.x,
        variance=variance,
        num_steps=case.config.z_chain.num_steps,
        step_size=case.config.z_chain.step_size,
        keep_every=1,
    )
    end, trace = jax.jit(revise)(case.keys, z0=start)
    expected = case.reference["z_chain_last"]
    assert relative_error(end, expected) < 1e-9
    assert relative_error(end - start, expected - case.reference["I_mu"]) < 1e-7
    mse = [
        densities.mean_squared_error(log_p, case.x, z, variance=variance).mean()
        for log_p, z in zip(trace.log_density, trace.states[:-1], strict=True)
    ]
    assert relative_error(np.array(mse), case.reference["z_chain_mse"]) < 1e-9


@pytest.mark.parametrize(
    ("config", "num_omitted_biases", "millions"),
    [(cifar10, 3 * 3 * 512, (16.02, 16.79, 15.21)), (celeba64, 3 * (512 + 256 + 128 + 64), (12.22, 19.54, 15.21))],
)
def test_full_size_parameter_counts(config, num_omitted_biases, millions):
    """The counts equal the authors' if the biases without effect, which the generator omits, are added."""
    nets = models.build(config.get_config())
    counts = [sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0)))) for net in nets]
    energy, generator, encoder = counts
    assert tuple(round(n / 1e6, 2) for n in (generator + num_omitted_biases, energy, encoder)) == millions


@pytest.mark.parametrize(("name", "config"), [("cifar10", cifar10), ("celeba64", celeba64)])
def test_recipes_have_the_authors_settings(name, config):
    config = config.get_config()
    reference = authors.config(name, authors.load(name))
    assert config.energy.temperature == pytest.approx(reference.energy.temperature, rel=1e-15)
    for section, field in (("x_chain", "step_size"), ("z_chain", "step_size"), ("generator", "variance")):
        assert config[section][field] == pytest.approx(reference[section][field], rel=1e-15)
    assert config.loss.generator.model_weight == reference.loss.generator.model_weight
    assert (config.x_chain.num_steps, config.z_chain.num_steps, config.train.batch_size) == (30, 10, 100)
    assert config.loss.fresh_negatives
