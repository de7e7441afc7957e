"""Feature spaces: distances of the data to itself, of pixels, and between bases."""

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
def test_distance_of_the_data_to_itself_is_zero(pool):
    """The order of the images does not matter. With pool = 2, the images are averaged down first."""
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
    metrics = neighbours.neighbourhoods(statistics.features, statistics.features[::-1])
    assert (metrics["precision"], metrics["recall"], metrics["coverage"]) == (1, 1, 1)
    some = space.extract(train[batches.subset(len(train), 200)])[0]
    np.testing.assert_allclose(statistics.features, some, rtol=1e-4, atol=1e-4)
    without_extract = space._replace(extract=None)
    again = spaces.statistics(without_extract, train, num_features=200)
    np.testing.assert_array_equal(again.moments.covariance, statistics.moments.covariance)
    with pytest.raises(TypeError):
        spaces.statistics(without_extract, train[::-1], num_features=200)


def test_distance_of_digits_equals_that_of_their_pixels():
    """The space of digits has as many components (64) as pixels, so it keeps all distances."""
    train, test, *_ = sources.load(tiny.config().data)
    space = spaces.space(tiny.config(), train, None)
    pixels = lambda x: frechet.moments(to_float(x, np.float64).reshape(len(x), -1))
    distance = frechet.frechet_distance(*(frechet.moments(space.extract(x)[0]) for x in (train, test)))
    assert distance == pytest.approx(frechet.frechet_distance(pixels(train), pixels(test)), rel=1e-5)


@pytest.mark.parametrize("shape", [(7, 8, 8, 1), (12, 33, 33, 3), (9, 100, 70, 1)])
def test_images_of_any_size_are_compared(shape):
    """Images are averaged down to at most 32 x 32 pixels, which keeps their brightness."""
    train = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    config = tiny.config(data__shape=shape[1:])
    space = spaces.space(config, train, None)
    statistics = spaces.statistics(space, train, num_features=7)
    assert statistics.features.shape == (7, space.size)
    brighter = space.extract(np.clip(train.astype(int) + 60, 0, 255).astype(np.uint8))[0]
    assert np.linalg.norm(brighter.mean(0) - statistics.moments.mean) > 1


def test_statistics_depend_on_the_basis(monkeypatch):
    """Principal axes that are fitted to other images form another space."""
    train = np.random.RandomState(1).randint(0, 256, (50, 8, 8, 1), np.uint8)
    statistics = []
    for num in (50, 20):
        monkeypatch.setattr(spaces, "NUM_TO_FIT", num)
        space = spaces.space(tiny.config(), train, None)
        statistics.append(spaces.statistics(space, train, num_features=50))
        np.testing.assert_allclose(statistics[-1].moments.mean, space.extract(train)[0].mean(0), atol=1e-4)
    assert not np.allclose(statistics[0].moments.covariance, statistics[1].moments.covariance)
