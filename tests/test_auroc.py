"""AUROC on a case worked out by hand."""

import numpy as np
import pytest

from dualmcmc_jax.metrics.auroc import auroc


def test_auroc_counts_a_tie_as_one_half():
    """The energies of data are 0 and 1, those of other examples 1 and 2: three of four pairs are in order, one ties."""
    assert auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
