"""Samples: their groups, and the memory that their comparison needs."""

import tracemalloc

import numpy as np
import tiny

from dualmcmc_jax.evaluation import samples, sampling
from dualmcmc_jax.features import spaces
from dualmcmc_jax.metrics import frechet
from dualmcmc_jax.model import Model
from dualmcmc_jax.runtime import parallel


def test_samples_depend_on_their_group_only():
    """With batch statistics, sample i is the same among 20 or 70 samples, but differs with another group size."""
    config = tiny.coupled()
    params = tiny.model(config).params
    draw = lambda config, num: parallel.collect(sampling.stream(Model.create(config, params), num_samples=num, seed=3))
    many = draw(config, 70)
    few = draw(config, 20)
    assert len(many["revised"]) == 70
    for name in samples.GROUPS:
        np.testing.assert_array_equal(few[name], many[name][:20])
    assert not np.array_equal(draw(tiny.coupled(evaluation__group_size=10), 20)["generator"], few["generator"])
    longer = draw(tiny.coupled(evaluation__x_chain=(6, 0.01, 0.1)), 20)
    np.testing.assert_array_equal(longer["generator"], few["generator"])
    assert not np.array_equal(longer["revised"], few["revised"])
    again = draw(tiny.coupled(evaluation__x_chain=(3, 0.01, 0.1)), 20)
    np.testing.assert_array_equal(again["revised"], few["revised"])


def test_comparison_keeps_only_the_first_thousand_samples():
    """The stream has 61 MB of images, of which the first thousand (3 MB) are kept."""
    space = spaces.Space("vectors", 4, lambda: "", lambda x: (x[:, 0, :4, 0].astype(np.float64), None))
    statistics = spaces.Statistics(frechet.moments(np.random.RandomState(0).normal(size=(50, 4))), np.ones((100, 4)))
    random = np.random.RandomState(0)
    images = (random.randint(0, 255, (100, 32, 32, 3), np.uint8) for _ in range(200))
    drawn = (dict.fromkeys(samples.GROUPS, x) for x in images)
    tracemalloc.start()
    metrics, kept = samples.compare_stream(drawn, space, statistics, num_samples=20_000, num_neighbours=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert metrics["revised/frechet_vectors"] > 0
    assert len(kept["revised"]) == 1000
    assert peak < 20e6
