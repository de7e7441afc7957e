"""AUROC on a case done by hand."""

import numpy as np
import pytest

from dualmcmc_jax.metrics.auroc import auroc


def test_auroc():
    """Of energies 0, 1 of data and 1, 2 of others, three pairs of four are in order and one is a tie."""
    assert auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
