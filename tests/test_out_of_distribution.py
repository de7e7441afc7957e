"""The sets of out-of-distribution images."""

import numpy as np
import pytest
import tiny
from ml_collections import FrozenConfigDict

from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import out_of_distribution


def test_out_of_distribution_sets_have_the_expected_images(tmp_path):
    held_out = sources.load(tiny.config().data).test[:30]
    strange = np.random.RandomState(0).randint(0, 256, (50, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "ood.npz", train=strange[:40], test=strange[40:])
    source = f"npz:{tmp_path / 'ood.npz'}"
    sets = out_of_distribution.other_sets(FrozenConfigDict(tiny.config(evaluation__ood=(source,))), held_out)
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
