"""Effective sample size and R-hat, compared with numbers of ArviZ 0.23.4 on the same draws, and with closed forms."""

from pathlib import Path

import numpy as np
import pytest

from dualmcmc_jax.metrics import chain_diagnostics

REFERENCE = np.load(Path(__file__).parent / "reference" / "chains.npz")
"""Draws [61, 4, 8] of eight quantities: independent and autoregressive ones, heavy tails, ties, chains that differ.

ess is `arviz.ess(draws.T, method="bulk")` and r_hat is `arviz.rhat(draws.T, method="rank")`, for all draws, for the
first 40 and for the first 21 of one chain.
"""


def test_numbers_equal_those_of_arviz():
    draws = REFERENCE["draws"]
    for name, part in {"": draws, "_40": draws[:40]}.items():
        np.testing.assert_allclose(chain_diagnostics.effective_sample_size(part), REFERENCE[f"ess{name}"], rtol=1e-10)
        np.testing.assert_allclose(chain_diagnostics.r_hat(part), REFERENCE[f"r_hat{name}"], rtol=1e-10)
    few = chain_diagnostics.effective_sample_size(draws[:21, :1])
    np.testing.assert_allclose(few, REFERENCE["ess_21_of_one_chain"], rtol=1e-10)


def test_effective_sample_size_of_an_autoregressive_chain_equals_the_closed_form():
    """For x <- a x + noise, the effective sample size is N (1 - a) / (1 + a)."""
    random, num, chains = np.random.RandomState(0), 4000, 8
    for a in (0.0, 0.8, -0.5):
        x = np.zeros((num, chains))
        for t in range(1, num):
            x[t] = a * x[t - 1] + random.normal(size=chains)
        size = chain_diagnostics.effective_sample_size(x[:, :, None])
        assert size.shape == (1,)
        assert size[0] == pytest.approx(num * chains * (1 - a) / (1 + a), rel=0.1)
        assert chain_diagnostics.r_hat(x) < 1.01


def test_constant_and_infinite_quantities_have_no_numbers():
    draws = np.random.RandomState(0).normal(size=(10, 3, 3))
    draws[:, :, 0], draws[4:, :, 1] = 2.0, np.inf
    for function in (chain_diagnostics.effective_sample_size, chain_diagnostics.r_hat):
        np.testing.assert_array_equal(np.isnan(function(draws)), [True, True, False])
    with pytest.raises(ValueError, match="draws: found 3 draws per chain, expected 4 or more"):
        chain_diagnostics.r_hat(draws[:3])
