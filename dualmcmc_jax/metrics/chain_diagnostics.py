"""Have Markov chains converged, and how many independent draws are they worth? Rank-normalized R-hat and bulk ESS.

The definitions are those of Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), "Rank-normalization, folding, and
localization: an improved R-hat for assessing convergence of MCMC", as in ArviZ and Stan. All functions take draws of
one or more scalar quantities, [N, C, ...]: N draws of each of C chains, for each quantity.
"""

import numpy as np
from scipy import special, stats


def r_hat(draws: np.ndarray) -> np.ndarray:
    """Return the rank-normalized split R-hat: whether the chains agree with each other, and with their own halves.

    R-hat is the square root of the variance of all draws over the mean variance within a half of a chain, of ranks
    converted to normal scores. It is near 1 if all halves have the same distribution. Vehtari et al. recommend draws
    only with R-hat below 1.01. The larger one is returned of the R-hat of the draws, which detects different locations,
    and that of their absolute deviations from the median, which detects different scales.

    Args:
      draws: [N, C, ...] draws, at least 4 per chain.

    Returns:
      R-hat of each quantity [...], in float64. NaN for a quantity that is constant or not finite.
    """
    halves = split(draws)
    with np.errstate(invalid="ignore"):
        folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    return np.maximum(_r_hat(normal_scores(halves)), _r_hat(normal_scores(folded)))


def effective_sample_size(draws: np.ndarray) -> np.ndarray:
    """Return the bulk effective sample size: how many independent draws would estimate means as accurately.

    It is C N / (1 + 2 sum_t rho_t), with the autocorrelations rho_t, of ranks converted to normal scores of the halves
    of the chains. The sum ends by the initial monotone sequence of Geyer (1992). Chains that disagree count as
    correlated. Vehtari et al. recommend at least 100 per chain; a few hundred in all give usable means.

    Args:
      draws: [N, C, ...] draws, at least 4 per chain.

    Returns:
      The effective sample size of each quantity [...], in float64, at most C N log10(C N). NaN for a quantity that is
      constant or not finite.
    """
    scores = normal_scores(split(draws))
    num, chains = scores.shape[:2]
    covariance = autocovariance(scores).mean(axis=1)  # [N, ...]
    within = covariance[0] * num / (num - 1)
    total = covariance[0] + (scores.mean(axis=0).var(axis=0, ddof=1) if chains > 1 else 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = 1 - (within - covariance) / total
    correlation[0] = 1
    # Sums of neighboring pairs are positive and decreasing for a reversible chain, but for noise (Geyer 1992). The sum
    # ends with the even term of the first negative pair if this term is positive, or else with that of the last pair.
    pairs = correlation[: (num - 1) // 2 * 2].reshape(-1, 2, *correlation.shape[1:])
    sums = pairs.sum(axis=1)
    ends = np.concatenate([sums[:-1] < 0, np.ones_like(sums[:1], bool)]).argmax(axis=0)
    index = np.arange(len(sums)).reshape(-1, *(1,) * (sums.ndim - 1))
    body = np.where(index < ends, np.minimum.accumulate(sums), 0).sum(axis=0)
    at_end = lambda values: np.take_along_axis(values, ends[None], axis=0)[0]
    last = np.where(at_end(sums) < 0, np.maximum(at_end(pairs[:, 0]), 0), at_end(pairs[:, 0]))
    time = np.maximum(-1 + 2 * body + last, 1 / np.log10(num * chains))
    return num * chains / time


def split(draws: np.ndarray) -> np.ndarray:
    """Return the halves of chains [N, C, ...] as chains [N // 2, 2 C, ...], in float64. The middle of odd N is dropped.

    Raises:
      ValueError: there are fewer than 4 draws per chain.
    """
    draws = np.asarray(draws, np.float64)
    if len(draws) < 4:
        raise ValueError(f"draws: found {len(draws)} draws per chain, expected 4 or more")
    half = len(draws) // 2
    return np.concatenate([draws[:half], draws[-half:]], axis=1)


def normal_scores(draws: np.ndarray) -> np.ndarray:
    """Replace each draw by the normal quantile of its rank among all draws of the quantity (Blom 1958).

    Args:
      draws: [N, C, ...] draws.

    Returns:
      Scores [N, C, ...]. NaN for a quantity that is constant or not finite.
    """
    flat = draws.reshape(draws.shape[0] * draws.shape[1], -1)
    ranks = stats.rankdata(flat, axis=0)
    scores = special.ndtri((ranks - 3 / 8) / (len(flat) + 1 / 4))
    valid = np.isfinite(flat).all(axis=0) & (flat != flat[0]).any(axis=0)
    return np.where(valid, scores, np.nan).reshape(draws.shape)


def autocovariance(draws: np.ndarray) -> np.ndarray:
    """Return the autocovariances of each chain at lags 0 to N - 1, divided by N, for draws [N, C, ...]."""
    num = len(draws)
    spectrum = np.fft.rfft(draws - draws.mean(axis=0), 2 * num, axis=0)
    return np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:num] / num


def _r_hat(draws: np.ndarray) -> np.ndarray:
    """Return sqrt(((N - 1) W + B) / (N W)): W the mean variance within chains, B / N that of their means."""
    num = len(draws)
    between, within = num * draws.mean(axis=0).var(axis=0, ddof=1), draws.var(axis=0, ddof=1).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((between / within + num - 1) / num)
