"""How far is the model from the ground-truth density, if the data set has one?

Also measures how accurately the two chains sample the model's own densities.
"""

import logging
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax import random_streams
from dualmcmc_jax.core import importance
from dualmcmc_jax.core.langevin import chain_keys, clipped
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.data import toy2d
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import sampling
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import acceptance, marginal_likelihood, quadrature
from dualmcmc_jax.model import Model
from dualmcmc_jax.random_streams import Stream
from dualmcmc_jax.report import figures
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.runtime import parallel

_log = logging.getLogger(__name__)
NUM_CHAINS = 10_000
"""Number of chains that measure the variance bias. The relative standard error of their variance is about 1%."""
NUM_FOR_MODES = 20_000
"""Number of samples that measure the probabilities of modes."""
NUM_HELD_OUT = 1000
"""Largest number of held-out examples for log-likelihoods and acceptance rates."""
NUM_LATENTS = 1000
"""Number of latents per example in the importance-sampling estimate of the generator's likelihood."""
SECTIONS = (
    Section(
        title="Ground-truth density",
        note=(
            "The EBM and the generator compared with the density that the data were drawn from (column: ground truth). "
            "Log-likelihoods are means over held-out data. The EBM's numbers, and the generator's log-likelihood if it "
            "has two latents, are computed by quadrature. The generator's grid is refined until no log-likelihood "
            f"changes by more than {marginal_likelihood.TOLERANCE} nats; if the change remains larger, the generator "
            "is too steep for the finest grid. The importance-sampling estimate is too low if its effective sample "
            "size is small. A mode counts as missed if it has less than 0.1 of its true probability. The error of mode "
            "probabilities is the total variation distance, half the sum of absolute differences. It is not 0 for "
            "samples of an exact model, because their number is finite."
        ),
        metrics={
            "density/{group}/kl_data_model": Metric("KL(data, model)", "lower", "nats"),
            "density/{group}/kl_model_data": Metric("KL(model, data)", "lower", "nats"),
            "density/{group}/log_likelihood": Metric("Log-likelihood", "higher", "nats"),
            "density/{group}/quadrature_change": Metric(
                "Log-likelihood, largest change in the last refinement of the grid", "lower", "nats"
            ),
            "density/{group}/log_likelihood_by_importance": Metric(
                "Log-likelihood, importance sampling", "higher", "nats", needs=("encoder",)
            ),
            "density/{group}/effective_sample_size_median": Metric(
                "Effective sample size, median", "higher", f"of {NUM_LATENTS:,}", needs=("encoder",)
            ),
            "density/{group}/effective_sample_size_5_percent": Metric(
                "Effective sample size, 5th percentile", "higher", f"of {NUM_LATENTS:,}", needs=("encoder",)
            ),
            "density/{group}/missed_modes": Metric("Missed modes", "lower"),
            "density/{group}/smallest_mode": Metric("Probability of rarest mode, relative to the truth", "higher"),
            "density/{group}/mode_error_data": Metric("Error of mode probabilities against the truth", "lower"),
            "density/{group}/mode_error_ebm": Metric("Error of mode probabilities against the EBM", "lower"),
        },
        groups={
            "data": Group("ground truth"),
            "ebm": Group("EBM", needs=("energy",)),
            "generator": Group("generator", needs=("generator",)),
            "revised": Group("samples after x-revision"),
            "revised_without_resampling": Group("the same without resampling"),
        },
    ),
    Section(
        title="Discretization error of the chains",
        note=(
            "Unadjusted chains sample their densities only approximately. The acceptance rate of Langevin chains is "
            "the fraction of steps that a Metropolis correction would accept; 1 means exact. For the samplers mala "
            "and hmc, which are exact, it is the fraction of accepted steps. Others have none. The variance bias is "
            "the relative change of the variance within modes along x-chains that start at exact draws from the EBM "
            "and run for ten times the training length; 0 means exact. A large bias can also mean that chains leave "
            "the square of the quadrature."
        ),
        metrics={
            "chain/{group}/acceptance": Metric("Metropolis acceptance rate", "higher"),
            "chain/{group}/variance_bias": Metric("Relative variance bias", unit="best: 0"),
        },
        groups={"x": Group("x-chain", needs=("energy",)), "z": Group("z-chain", needs=("generator",))},
    ),
)
CAPTIONS = {
    "samples": (
        "The ground-truth density, the density of the EBM on the same color scale, samples of the generator, and the "
        "samples after the x-revision. The color scale ends at the maximum of the ground-truth density. Higher "
        "densities of the EBM have the color of this maximum."
    )
}


class Densities(NamedTuple):
    """Log-densities on a grid of cells, indexed by (x1, x2).

    Attributes:
      data: [side, side], log-density of the ground truth.
      ebm: [side, side], log-density of the EBM.
    """

    data: np.ndarray
    ebm: np.ndarray


def applies(config, dataset) -> bool:
    """Return whether the data set has a ground-truth density."""
    return dataset.density is not None


def measure(model: Model, inputs: Inputs) -> Measured:
    """Measure KL divergences, log-likelihoods, the probabilities of modes, and the discretization error of the chains.

    The KL divergences of the EBM are sums over a grid. The KL divergence of the generator is the mean difference of
    log-densities over held-out examples. It is measured only if the generator has two latents.
    """
    truth, seed, config = inputs.dataset.density, inputs.seed, model.config
    x = inputs.held_out[:NUM_HELD_OUT].astype(model.dtype)
    cells = quadrature.grid(truth.half_width)
    components = truth.components(cells.x)
    cell_mode = components.argmax(axis=1)
    log_p = np.logaddexp.reduce(components, axis=1) - np.log(truth.num_components)
    log_q = quadrature.normalized(model.log_density(cells.x.astype(model.dtype)), cells.area)
    metrics = {
        "density/ebm/kl_data_model": quadrature.kl_divergence(log_p, log_q, cells.area),
        "density/ebm/kl_model_data": quadrature.kl_divergence(log_q, log_p, cells.area),
    }

    log_z = np.asarray(model.log_density(cells.x[:1].astype(model.dtype)), np.float64)[0] - log_q[0]
    metrics["density/data/log_likelihood"] = float(truth.log_density(x).mean())
    metrics["density/ebm/log_likelihood"] = float(np.asarray(model.log_density(x), np.float64).mean() - log_z)
    if config.generator.latent_dim == 2:
        log_p_theta, change = likelihood_by_quadrature(model, x)
        metrics["density/generator/log_likelihood"] = float(log_p_theta.mean())
        metrics["density/generator/quadrature_change"] = change
        metrics["density/generator/kl_data_model"] = float(truth.log_density(x).mean() - log_p_theta.mean())
    estimates, sample_sizes = likelihood_by_importance(model, x, seed=seed)
    metrics["density/generator/log_likelihood_by_importance"] = float(estimates.mean())
    metrics["density/generator/effective_sample_size_median"] = float(np.median(sample_sizes))
    metrics["density/generator/effective_sample_size_5_percent"] = float(np.percentile(sample_sizes, 5))

    data_modes = np.bincount(cell_mode, np.exp(log_p) * cells.area, truth.num_components)
    mode_probabilities = {"ebm": np.bincount(cell_mode, np.exp(log_q) * cells.area, truth.num_components)}
    mode_probabilities |= probabilities_of_modes(model, truth, seed=seed)
    if config.x_chain.resample:
        plain = probabilities_of_modes(model.with_resampling(0), truth, seed=seed)
        mode_probabilities["revised_without_resampling"] = plain["revised"]
    for name, probabilities in mode_probabilities.items():
        metrics[f"density/{name}/missed_modes"] = int(np.sum(probabilities * truth.num_components < 0.1))
        metrics[f"density/{name}/smallest_mode"] = float(probabilities.min() * truth.num_components)
        metrics[f"density/{name}/mode_error_data"] = _total_variation(probabilities, data_modes)
        if name != "ebm":
            metrics[f"density/{name}/mode_error_ebm"] = _total_variation(probabilities, mode_probabilities["ebm"])

    keys = chain_keys(random_streams.key(seed, Stream.ACCEPTANCE), np.arange(len(x)))
    metrics |= {f"chain/{name}/acceptance": float(rate) for name, rate in _acceptance(model, keys, x).items()}
    random = random_streams.random_state(seed, Stream.VARIANCE_BIAS_STARTS)
    start = quadrature.sample(random, cells, log_q, NUM_CHAINS).astype(model.dtype)
    keys = chain_keys(random_streams.key(seed, Stream.VARIANCE_BIAS), np.arange(NUM_CHAINS))
    variance = _variance_within(cells.x, cell_mode, np.exp(log_q) * cells.area)
    end = np.asarray(_long_chain(model, keys, start), np.float64)
    variance_after = _variance_within(end, truth.components(end).argmax(axis=1), np.full(NUM_CHAINS, 1 / NUM_CHAINS))
    metrics["chain/x/variance_bias"] = variance_after / variance - 1

    side = round(len(cells.x) ** 0.5)
    return Measured(metrics, Densities(log_p.reshape(side, side), log_q.reshape(side, side)))


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
    """Draw the ground-truth density and the density of the EBM beside the kept samples."""
    return {"samples": figure(measured.arrays, inputs.kept, half_width=inputs.dataset.density.half_width)}


def figure(log_densities: Densities, samples: dict[str, np.ndarray], *, half_width: float) -> Figure:
    """Draw the ground-truth density and the density of the EBM beside samples before and after the x-revision.

    Args:
      log_densities: the log-densities on a grid over the square [-half_width, half_width]^2.
      samples: [N, 2] points by "generator" and "revised".
      half_width: half the width of the square, in units of x. The figure shows the part where the ground-truth density
        is not negligible.
    """
    figure, axes = figures.plt.subplots(1, 4, figsize=(14.6, 3.9), layout="constrained", sharex=True, sharey=True)
    brightest, box = np.exp(log_densities.data).max(), 4 * (half_width,)
    inside = np.exp(log_densities.data) > 1e-4 * brightest
    side = np.linspace(-half_width, half_width, len(inside))
    limit = 1.15 * max(np.abs(side[inside.any(axis)]).max() for axis in (0, 1))
    for axis, log_p, title in zip(axes, log_densities, ("ground-truth density", "density of the EBM"), strict=False):
        extent = np.multiply(box, (-1, 1, -1, 1))
        image = axis.imshow(np.exp(log_p).T, origin="lower", extent=extent, vmin=0, vmax=brightest)
        axis.set_title(title)
    exceeds = "max" if log_densities.ebm.max() > log_densities.data.max() else "neither"
    figure.colorbar(image, ax=axes[:2], extend=exceeds, label="probability density", shrink=0.8)
    for axis, (name, title) in zip(axes[2:], sampling.TITLES.items(), strict=True):
        axis.plot(*samples[name].T, ".", markersize=2, alpha=0.5)
        axis.set_title(f"samples: {title}")
    for axis in axes:
        axis.set_aspect("equal")
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="x1")
    axes[0].set_ylabel("x2")
    return figure


def probabilities_of_modes(model: Model, truth: toy2d.Density, *, seed: int) -> dict[str, np.ndarray]:
    """Measure the shares of `NUM_FOR_MODES` samples that belong to each component of a ground-truth density.

    Args:
      model: the model.
      truth: the ground-truth density. A point belongs to the component with the largest density.
      seed: seed of the samples.

    Returns:
      Shares [num_components] by "generator" and "revised".
    """
    counts = dict.fromkeys(sampling.TITLES, 0)
    for part in sampling.stream(model, num_samples=NUM_FOR_MODES, seed=seed):
        for name, x in part.items():
            component = truth.components(x).argmax(axis=1)
            counts[name] = counts[name] + np.bincount(component, minlength=truth.num_components)
    return {name: count / NUM_FOR_MODES for name, count in counts.items()}


def likelihood_by_quadrature(model: Model, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute the log-likelihoods of a generator with two latents by quadrature, in groups of examples.

    A warning is logged if the finest grid is too coarse.

    Args:
      model: the model.
      x: [N, ...], float vectors.

    Returns:
      log p_theta(x) [N] in nats, and the largest change in the last refinement of the grid.
    """
    groups = (x[i : i + 500] for i in range(0, len(x), 500))
    refined = [marginal_likelihood.refined(partial(_by_quadrature, model, group)) for group in groups]
    change = max(change for _, change in refined)
    if not change <= marginal_likelihood.TOLERANCE:
        expected = f"at most {marginal_likelihood.TOLERANCE}; the generator is too steep for the finest grid"
        _log.warning("density/generator/log_likelihood: found changes of %.3g nats, expected %s", change, expected)
    return np.concatenate([log_p for log_p, _ in refined]), change


def likelihood_by_importance(model: Model, x: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the generator's log-likelihoods by importance sampling from the inference model.

    Args:
      model: the model.
      x: [N, ...], uint8 images or float vectors.
      seed: seed of the latents.

    Returns:
      Estimates of log p_theta(x) in nats [N], and effective sample sizes between 1 and NUM_LATENTS [N].
    """
    run = parallel.stream(_by_importance, model.config.evaluation.batch_size, desc="likelihoods")
    return parallel.collect(run((model, random_streams.key(seed, Stream.MARGINAL_LIKELIHOOD)), len(x), x))


def _by_importance(constants, index, x):
    """Estimate log p_theta(x) [B] of one batch of examples x [B, ...], with effective sample sizes [B]."""
    model, key = constants
    bound, variance = model.bound(), model.config.generator.variance
    x, settings = to_float(x, model.dtype), {"variance": variance, "num_samples": NUM_LATENTS}
    return importance.log_marginal(chain_keys(key, index), bound.encode, bound.decode, x, **settings)


@partial(jax.jit, static_argnums=2)
def _by_quadrature(model, x, num_points):
    """Compute log p_theta(x) [B] of examples x [B, ...] by quadrature over two latents."""
    variance = model.config.generator.variance
    return marginal_likelihood.quadrature(model.bound().decode, x, variance=variance, num_points=num_points)


@jax.jit
def _acceptance(model, keys, x):
    """Return the mean Metropolis acceptance probability of the x-chain's and the z-chain's steps, by "x" and "z".

    A chain without steps, or with an unadjusted kernel whose steps are not proposals of the Metropolis-adjusted
    Langevin algorithm, is left out.
    """
    config, bound, rates = model.config, model.bound(), {}
    if config.x_chain.num_steps:
        trace = bound.synthesize(keys, keep_every=1).trace
        rates["x"] = _rate(trace, clipped(bound.log_density, config.x_chain.clip_score), config.x_chain)
    trace = bound.infer(keys, x, keep_every=1).trace
    rates["z"] = _rate(trace, partial(bound.log_joint, x), config.z_chain)
    return {name: rate for name, rate in rates.items() if rate is not None}


def _rate(trace, log_density, chain):
    """Return the mean acceptance probability of the steps of a trace with all states, or None if there is none."""
    if trace.acceptance is not None:
        return trace.acceptance.mean()
    if chain.sampler == "langevin":
        return acceptance.rate(trace.states, log_density, step_size=chain.step_size)
    return None


def _total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Return the total variation distance of two discrete distributions [K]."""
    return float(0.5 * np.abs(p - q).sum())


@jax.jit
def _long_chain(model, keys, x):
    """Run the x-chain from x [B, ...] for ten times its configured number of steps.

    A kernel whose steps change along the chain is replaced by that of its last step.
    """
    chain = model.config.x_chain
    sampler = SAMPLERS[chain.sampler].then or chain.sampler
    return model.bound().revise_x(keys, x, num_steps=10 * max(1, chain.num_steps), sampler=sampler)[0]


def _variance_within(x: np.ndarray, component: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted variance of x [N, 2] about the mean of the component that each point belongs to.

    The weights [N] sum to 1.
    """
    total = np.bincount(component, weight)
    mean = np.stack([np.bincount(component, weight * column) for column in x.T], axis=-1)
    mean = mean / np.maximum(total, 1e-300)[:, None]
    return float(np.sum(weight * np.sum((x - mean[component]) ** 2, axis=-1)))
