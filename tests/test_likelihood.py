"""The likelihood of energies with a known partition function."""

import numpy as np
import pytest
import tiny

from dualmcmc_jax import models
from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import likelihood, question, suite
from dualmcmc_jax.model import Model

pytestmark = pytest.mark.slow


def test_bits_per_dimension_equal_those_of_known_densities():
    """A constant energy gives 8 bits per dimension. A linear energy gives a product of densities of single pixels."""
    config = tiny.config(evaluation__ais_temperatures=100)
    x = np.random.RandomState(0).randint(0, 256, (300, 8, 8, 1)).astype(np.uint8)
    for slope in (0.0, 1.5):
        energy = lambda x, slope=slope: -config.energy.temperature * slope * x.reshape(len(x), -1).sum(-1)
        nets = models.Nets(*[models.Net(None, lambda _, f=energy: f)] * 3)
        model = Model.create(config, models.Params({}, {}, {}), nets=nets)
        dataset = sources.Dataset(x, x, value_range=(-1.0, 1.0))
        metrics = likelihood.measure(model, question.Inputs(dataset, x, space=None, statistics=None)).metrics
        edges = np.linspace(-1, 1, 257)
        share = np.exp(slope * edges)
        share = np.diff(share) / (share[-1] - share[0]) if slope else np.full(256, 1 / 256)
        exact = -np.log2(share)[x].mean()
        error = metrics["likelihood/ebm/bits_per_dim_error"]
        for side in ("least", "most"):
            assert metrics[f"likelihood/ebm/bits_per_dim_at_{side}"] == pytest.approx(exact, abs=3 * error + 1e-4)
        assert error < 0.02


def test_likelihood_is_refused_for_data_of_unknown_range():
    config = tiny.config(evaluation__ais_temperatures=9, data__source="npz:x.npz", data__shape=(2,))
    vectors = np.zeros((20, 2), np.float32)
    with pytest.raises(ValueError, match=r"^evaluation.ais_temperatures: found 9, expected 0, because"):
        suite.inputs(config, sources.Dataset(vectors, vectors[:1]), None)
