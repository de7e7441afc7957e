"""What an evaluation measures: identities a sceptic would try, closed forms, and what it holds in memory."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax import models
from dualmcmc_jax.data import batches, sources
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import drawing, out_of_distribution, reconstruction, revisions, samples, suite
from dualmcmc_jax.features import spaces
from dualmcmc_jax.metrics import frechet, neighbours
from dualmcmc_jax.report import tables
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training import optimizers
from dualmcmc_jax.training import state as train_state


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def coupled(**fields):
    """A generator with batch statistics, in float64."""
    config = tiny.config(train__compute_dtype="float64", evaluation__group_size=16, evaluation__num_samples=70)
    config.generator.update(kind="resnet", widths=(4, 4))
    config.train.unroll = 1
    config.energy.temperature = 0.1
    config.x_chain.step_size = 0.01
    config.evaluation.update(num_held_out=50, num_neighbours=40)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def initial(config):
    return train_state.create(config, models.build(config), optimizers.build(config, steps_per_epoch=1)).average


def test_nothing_depends_on_devices_or_batch_size(monkeypatch):
    """1 and 4 devices, energies and features in batches of 100 and of 7, and more samples than one call makes."""
    found = []
    for num_devices, batch_size in ((4, 100), (1, 7)):
        monkeypatch.setattr(parallel, "available", lambda n=num_devices: jax.local_devices()[:n])
        config = coupled(evaluation__batch_size=batch_size)
        given = suite.inputs(config, sources.load(config.data), None)
        metrics = suite.evaluate(config, given, initial(config), step=0, seed=1).metrics
        found.append({name: value for name, value in metrics.items() if "seconds" not in name})
    assert len(found[0]) > 60
    for name, value in found[0].items():
        assert found[1][name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-9, abs=1e-12)), name


def test_samples_are_made_in_groups():
    """Sample i is the same among 20 as among 70, and in no other group size, if the generator has batch statistics."""
    config = coupled()
    params = initial(config)
    draw = lambda config, num: parallel.collect(drawing.sampler(config)(params, num_samples=num, seed=3))
    many = draw(config, 70)
    few = draw(config, 20)
    assert len(many["revised"]) == 70
    for name in samples.MODELS:
        np.testing.assert_array_equal(few[name], many[name][:20])
    assert not np.array_equal(draw(coupled(evaluation__group_size=10), 20)["generator"], few["generator"])
    longer = draw(coupled(evaluation__x_chain=(6, 0.01, 0.1)), 20)
    np.testing.assert_array_equal(longer["generator"], few["generator"])
    assert not np.array_equal(longer["revised"], few["revised"])
    again = draw(coupled(evaluation__x_chain=(3, 0.01, 0.1)), 20)
    np.testing.assert_array_equal(again["revised"], few["revised"])


@pytest.mark.parametrize("pool", [1, 2])
def test_data_against_itself(pool):
    """In any order, and of images that are averaged down first."""
    train = sources.load(tiny.config().data).train
    if pool == 2:
        train = np.kron(np.tile(train[:300], (1, 4, 4, 1)), np.ones((1, 2, 2, 1), np.uint8))  # 64 x 64
    config = tiny.config()
    space = spaces.space(config, train, None)
    known = spaces.statistics(space, train, num_features=200)
    shuffled = train[np.random.RandomState(0).permutation(len(train))]
    accumulator = frechet.Accumulator(space.size)
    for part in np.array_split(shuffled, 7):
        accumulator.add(space.extract(part)[0])
    scale = np.trace(known.moments.covariance)
    assert abs(frechet.frechet(known.moments, accumulator.moments())) < 1e-8 * scale
    near = neighbours.neighbourhoods(known.features, known.features[::-1])
    assert (near["precision"], near["recall"], near["coverage"]) == (1, 1, 1)
    some = space.extract(train[batches.subset(len(train), 200)])[0]
    np.testing.assert_allclose(known.features, some, rtol=1e-4, atol=1e-4)
    forgetful = space._replace(extract=None)
    again = spaces.statistics(forgetful, train, num_features=200)
    np.testing.assert_array_equal(again.moments.covariance, known.moments.covariance)
    with pytest.raises(TypeError):
        spaces.statistics(forgetful, train[::-1], num_features=200)


def test_pixels_of_digits_are_all_kept():
    """64 components of 64 pixels: the Frechet distance of the pixels themselves."""
    train, test, *_ = sources.load(tiny.config().data)
    space = spaces.space(tiny.config(), train, None)
    pixels = lambda x: frechet.moments(to_float(x, np.float64).reshape(len(x), -1))
    found = frechet.frechet(*(frechet.moments(space.extract(x)[0]) for x in (train, test)))
    assert found == pytest.approx(frechet.frechet(pixels(train), pixels(test)), rel=1e-5)


@pytest.mark.parametrize("shape", [(7, 8, 8, 1), (12, 33, 33, 3), (9, 100, 70, 1)])
def test_pixels_of_any_size(shape):
    """At most 32 x 32 of them are compared; brightness survives the averaging."""
    train = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    config = tiny.config(data__shape=shape[1:])
    space = spaces.space(config, train, None)
    known = spaces.statistics(space, train, num_features=7)
    assert known.features.shape == (7, space.size)
    brighter = space.extract(np.clip(train.astype(int) + 60, 0, 255).astype(np.uint8))[0]
    assert np.linalg.norm(brighter.mean(0) - known.moments.mean) > 1


def test_statistics_are_of_their_basis(monkeypatch):
    """Other principal axes, by another fit, are another space."""
    train = np.random.RandomState(1).randint(0, 256, (50, 8, 8, 1), np.uint8)
    found = []
    for num in (50, 20):
        monkeypatch.setattr(spaces, "NUM_TO_FIT", num)
        space = spaces.space(tiny.config(), train, None)
        found.append(spaces.statistics(space, train, num_features=50))
        np.testing.assert_allclose(found[-1].moments.mean, space.extract(train)[0].mean(0), atol=1e-4)
    assert not np.allclose(found[0].moments.covariance, found[1].moments.covariance)


def test_a_model_that_diverged_is_measured(tmp_path):
    config = coupled(x_chain__num_steps=2)
    params = initial(config)
    params = params._replace(energy=jax.tree.map(lambda x: x * np.nan, params.energy))
    given = suite.inputs(config, sources.load(config.data), None)
    found = suite.evaluate(config, given, params, step=0, seed=0)
    assert np.isnan(found.metrics["auroc/constant"])
    assert '"auroc/constant": null' in tables.as_json(found.metrics)
    assert "nan" in tables.text(found.metrics)
    assert len(suite.draw(config, given, params, found, tmp_path, seed=0)) == 8


def test_without_an_x_chain(tmp_path):
    config = coupled(x_chain__num_steps=0)
    given = suite.inputs(config, sources.load(config.data), None)
    params = initial(config)
    found = suite.evaluate(config, given, params, step=0, seed=0)
    assert found.metrics["generator/frechet_pixels_pca"] == found.metrics["revised/frechet_pixels_pca"]
    assert not any(name.startswith("long_run") for name in found.metrics)
    assert "long_run" not in suite.draw(config, given, params, found, tmp_path, seed=0)


def test_samples_pass_through():
    """Of 61 MB of images no more than the first thousand are kept, 3 MB of them."""
    config = tiny.config(data__source="npz:", evaluation__num_neighbours=100)
    space = spaces.Space("vectors", 4, lambda: "", lambda x: (x[:, 0, :4, 0].astype(np.float64), None))
    known = spaces.Statistics(frechet.moments(np.random.RandomState(0).normal(size=(50, 4))), np.ones((100, 4)))
    random = np.random.RandomState(0)
    images = (random.randint(0, 255, (100, 32, 32, 3), np.uint8) for _ in range(200))
    drawn = (dict.fromkeys(samples.MODELS, x) for x in images)
    tracemalloc.start()
    found, kept = samples.compare(config, space, known, drawn, 20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["revised/frechet_vectors"] > 0
    assert len(kept["revised"]) == 1000
    assert peak < 20e6


def test_reconstruction():
    """The inference model's mean, directly; and chains that hardly move stay at q's draw and at the prior."""
    config = coupled(z_chain__step_size=1e-14)
    params, nets = initial(config), models.build(coupled())
    x = sources.load(config.data).test[:40]
    found = reconstruction.reconstructor(config)(params, x, seed=0)
    decode, wrapped = jax.jit(nets.generator.bind(params.generator)), np.concatenate([x, x[:8]])
    groups = to_float(jnp.asarray(wrapped), jnp.float64).reshape(3, 16, 8, 8, 1)
    encoded = [nets.encoder.bind(params.encoder)(group) for group in groups]
    decoded = np.concatenate([decode(mean) for mean, _ in encoded])[:40]
    assert found["encoder/mse"] == pytest.approx(np.mean((decoded - to_float(x, np.float64)) ** 2), rel=1e-9)

    def expected(draw):
        random = np.random.RandomState(0)
        errors = [
            np.mean((decode(draw(random, mean, log_var)) - x) ** 2, axis=(1, 2, 3))
            for _ in range(100)
            for x, (mean, log_var) in zip(groups[:2], encoded[:2], strict=True)
        ]
        return np.mean(errors)

    of_q = expected(lambda random, mean, log_var: mean + np.exp(log_var / 2) * random.normal(size=mean.shape))
    of_prior = expected(lambda random, mean, _: random.normal(size=mean.shape))
    assert found["encoder_chain/mse"] == pytest.approx(of_q, rel=0.1)
    assert found["noise_chain/mse"] == pytest.approx(of_prior, rel=0.1)
    better = reconstruction.reconstructor(coupled(z_chain__num_steps=50))(params, x, seed=0)
    assert better["noise_chain/mse"] < found["noise_chain/mse"]


def test_auroc():
    """Of energies 0, 1 of data and 1, 2 of others, three pairs of four are in order and one is a tie."""
    assert out_of_distribution.auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)


def test_out_of_distribution_sets(tmp_path):
    held_out = sources.load(tiny.config().data).test[:30]
    strange = np.random.RandomState(0).randint(0, 256, (50, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "ood.npz", train=strange[:40], test=strange[40:])
    source = f"npz:{tmp_path / 'ood.npz'}"
    sets = out_of_distribution.out_of_distribution(tiny.config(evaluation__ood=(source,)), held_out)
    assert set(sets) == {"average_of_two", "uniform_noise", "constant", source}
    for x in sets.values():
        assert x.dtype == np.uint8
        assert x.shape == held_out.shape
    rows = lambda x: {row.tobytes() for row in x}
    assert rows(sets[source][:10]) == rows(strange[40:])
    assert len(rows(sets[source][10:]) & rows(strange[:40])) == 20
    assert np.all(sets["constant"].reshape(30, -1).std(1) == 0)
    assert sets["uniform_noise"].std() == pytest.approx(255 / np.sqrt(12), rel=0.05)
    np.testing.assert_allclose(sets["average_of_two"].mean(0), held_out.mean(0), atol=1)
    assert sets["average_of_two"].var(0).sum() == pytest.approx(held_out.var(0).sum() / 2, rel=0.2)


def test_long_chains_are_as_long_as_they_say():
    """Without an energy they are random walks of variance 2 s n, whose steps are all independent."""
    config = coupled(x_chain__num_steps=5, evaluation__group_size=50)
    params = initial(config)
    params = params._replace(energy=jax.tree.map(jnp.zeros_like, params.energy))
    chains = out_of_distribution.long_run(config)(params, seed=0)
    assert chains.steps == [5, 50, 500]
    assert chains.energy.shape == (501, 50)
    first, second, third = chains.states
    assert np.var(second - first) == pytest.approx(2 * 0.01 * 45, rel=0.1)
    assert np.var(third - first) == pytest.approx(2 * 0.01 * 495, rel=0.1)


def test_arcs():
    random = np.random.RandomState(0)
    a, b = random.normal(size=(2, 3, 50))
    points = revisions.slerp(a, b, jnp.linspace(0, 1, 5))
    np.testing.assert_allclose(points[:, 0], a, atol=1e-12)
    np.testing.assert_allclose(points[:, -1], b, atol=1e-12)
    length = np.linalg.norm(points, axis=-1)
    np.testing.assert_allclose(length[:, 2], (length[:, 0] + length[:, 4]) / 2, rtol=1e-12)
    cosine = lambda u, v: np.sum(u * v, -1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
    np.testing.assert_allclose(cosine(points[:, 1], points[:, 2]), cosine(points[:, 3], points[:, 4]), rtol=1e-9)


def test_interpolations_do_not_depend_on_each_other():
    config = coupled()
    params, held_out = initial(config), sources.load(config.data).test
    few, many = (revisions.interpolations(config, held_out, num_rows=n)(params, seed=0) for n in (2, 4))
    for name, ends in (("samples", 0), ("reconstructions", 1)):
        assert many[name].shape == (4, 8 + 2 * ends, 8, 8, 1)
        np.testing.assert_array_equal(few[name][:, ends], many[name][:2, ends])
    first = held_out[batches.subset(len(held_out), 8)]
    np.testing.assert_array_equal(many["reconstructions"][:, 0], first[:4])
    np.testing.assert_array_equal(many["reconstructions"][:, -1], first[4:])


def test_revisions_are_thinned():
    """Every third state of the x-chain and every one of the z-chain; of long chains fewer."""
    held_out = sources.load(coupled().data).test
    for x_steps, z_steps, expected_x, expected_z in (
        (7, 3, [0, 3, 6, 7], [0, 1, 2, 3]),
        (100, 45, [0, 4, 8], [0, 3, 6]),
    ):
        config = tiny.config(x_chain__num_steps=x_steps, z_chain__num_steps=z_steps)
        found = revisions.revisions(config, held_out)(initial(config), seed=0)
        assert list(found["x_steps"])[: len(expected_x)] == expected_x
        assert list(found["z_steps"])[: len(expected_z)] == expected_z
        assert len(found["x_states"]) == len(found["x_steps"])
        assert len(found["z_states"]) == len(found["z_steps"]) == len(found["mse"])
        assert len(found["energy"]) == x_steps
