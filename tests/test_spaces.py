"""Feature spaces: identities a sceptic would try."""

import numpy as np
import pytest
import tiny

from dualmcmc_jax.data import batches, sources
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.features import spaces
from dualmcmc_jax.metrics import frechet, neighbours


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize("pool", [1, 2])
def test_data_against_itself(pool):
    """In any order, and of images that are averaged down first."""
    train = sources.load(tiny.config().data).train
    if pool == 2:
        train = np.kron(np.tile(train[:300], (1, 4, 4, 1)), np.ones((1, 2, 2, 1), np.uint8))  # 64 x 64
    config = tiny.config()
    space = spaces.space(config, train, None)
    statistics = spaces.statistics(space, train, num_features=200)
    shuffled = train[np.random.RandomState(0).permutation(len(train))]
    accumulator = frechet.Accumulator(space.size)
    for part in np.array_split(shuffled, 7):
        accumulator.add(space.extract(part)[0])
    scale = np.trace(statistics.moments.covariance)
    assert abs(frechet.frechet_distance(statistics.moments, accumulator.moments())) < 1e-8 * scale
    near = neighbours.neighbourhoods(statistics.features, statistics.features[::-1])
    assert (near["precision"], near["recall"], near["coverage"]) == (1, 1, 1)
    some = space.extract(train[batches.subset(len(train), 200)])[0]
    np.testing.assert_allclose(statistics.features, some, rtol=1e-4, atol=1e-4)
    forgetful = space._replace(extract=None)
    again = spaces.statistics(forgetful, train, num_features=200)
    np.testing.assert_array_equal(again.moments.covariance, statistics.moments.covariance)
    with pytest.raises(TypeError):
        spaces.statistics(forgetful, train[::-1], num_features=200)


def test_pixels_of_digits_are_all_kept():
    """64 components of 64 pixels: the Frechet distance of the pixels themselves."""
    train, test, *_ = sources.load(tiny.config().data)
    space = spaces.space(tiny.config(), train, None)
    pixels = lambda x: frechet.moments(to_float(x, np.float64).reshape(len(x), -1))
    found = frechet.frechet_distance(*(frechet.moments(space.extract(x)[0]) for x in (train, test)))
    assert found == pytest.approx(frechet.frechet_distance(pixels(train), pixels(test)), rel=1e-5)


@pytest.mark.parametrize("shape", [(7, 8, 8, 1), (12, 33, 33, 3), (9, 100, 70, 1)])
def test_pixels_of_any_size(shape):
    """At most 32 x 32 of them are compared; brightness survives the averaging."""
    train = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    config = tiny.config(data__shape=shape[1:])
    space = spaces.space(config, train, None)
    statistics = spaces.statistics(space, train, num_features=7)
    assert statistics.features.shape == (7, space.size)
    brighter = space.extract(np.clip(train.astype(int) + 60, 0, 255).astype(np.uint8))[0]
    assert np.linalg.norm(brighter.mean(0) - statistics.moments.mean) > 1


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
