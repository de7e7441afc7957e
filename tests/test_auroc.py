"""AUROC on a case worked out by hand."""

import numpy as np
import pytest

from dualmcmc_jax.metrics.auroc import auroc


def test_auroc_counts_a_tie_as_one_half():
    """Data have the energies 0 and 1, others 1 and 2. Three of the four pairs are in order, and one pair is a tie."""
    assert auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
