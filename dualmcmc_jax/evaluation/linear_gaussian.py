"""Does training of linear, Gaussian models end where the closed form says?

The models are a quadratic energy, a generator x = W z + c of one latent, and an inference model of mean m x + e. Axes
are the eigenvectors of the data's covariance S, and lambda are its eigenvalues, largest first.
"""

from typing import NamedTuple

import jax
import numpy as np
from scipy import optimize

from dualmcmc_jax import models
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import quadrature
from dualmcmc_jax.model import Model
from dualmcmc_jax.models import Params
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.training import objectives

SECTIONS = (
    Section(
        title="The solution in closed form",
        note=(
            "Parameters along the eigenvectors of the training data's covariance, and KL divergences in nats from "
            "maximum likelihood, which is known. fixed point: where the config's losses and its finite, unadjusted "
            "chains lead with endless training; what was learned should be near it, and it near maximum likelihood "
            "where the losses are without model pairs, and the chains long and their steps small."
        ),
        metrics={
            "linear/{group}/ebm_variance_1": Metric("ebm variance 1"),
            "linear/{group}/ebm_variance_2": Metric("ebm variance 2"),
            "linear/{group}/generator_weight": Metric("generator weight"),
            "linear/{group}/encoder_slope": Metric("encoder slope"),
            "linear/{group}/encoder_variance": Metric("encoder variance"),
            "linear/{group}/kl_ebm": Metric("kl ebm", "lower", "nats"),
            "linear/{group}/kl_generator": Metric("kl generator", "lower", "nats"),
            "linear/{group}/kl_encoder": Metric("kl encoder", "lower", "nats"),
        },
        groups={
            "learned": Group("learned"),
            "fixed_point": Group("fixed point"),
            "maximum_likelihood": Group("maximum likelihood"),
        },
    ),
)
CAPTIONS = {}


class Solution(NamedTuple):
    """Three models of x [D], in float64.

    Attributes:
      mean: [D], mean of the EBM.
      covariance: [D, D], covariance of the EBM.
      weight: [D], W of the generator.
      bias: [D], c of the generator.
      slope: [D], m of the inference model.
      intercept: e of the inference model.
      variance: variance of the inference model.
    """

    mean: np.ndarray
    covariance: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    slope: np.ndarray
    intercept: float
    variance: float


def applies(config, dataset) -> bool:
    """Return whether the models are linear and Gaussian, with one latent and two dimensions of x."""
    nets = models.build(config)
    linear = nets.energy.is_gaussian and nets.generator.is_affine and nets.encoder.is_affine
    return linear and config.generator.latent_dim == 1 and tuple(config.data.shape) == (2,)


def measure(model: Model, inputs: Inputs) -> Measured:
    """Compare the learned models with the fixed point and maximum likelihood; see `compare`."""
    return Measured(compare(model, inputs.dataset.train))


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict:
    """The closed form has no figure."""
    return {}


def compare(model: Model, train: np.ndarray) -> dict[str, float]:
    """Read off what was learned from train [N, D], beside the fixed point and maximum likelihood.

    Returns:
      Parameters and KL divergences by "linear/SOLUTION/PARAMETER".
    """
    config, x = model.run_config, np.asarray(train, np.float64)
    mean, covariance = x.mean(0), np.cov(x.T, bias=True)
    best = maximum_likelihood(mean, covariance, variance=config.generator.variance)
    solutions = {
        "learned": learned(model, mean),
        "fixed_point": fixed_point(config, mean, covariance),
        "maximum_likelihood": best,
    }
    metrics = {}
    for name, solution in solutions.items():
        parameters = _parameters(solution, covariance) if solution else {}
        if solution and solution is not best:
            parameters |= divergences(solution, best, mean, covariance, variance=config.generator.variance)
        metrics |= {f"linear/{name}/{parameter}": float(value) for parameter, value in parameters.items()}
    return metrics


def maximum_likelihood(mean: np.ndarray, covariance: np.ndarray, *, variance: float) -> Solution:
    """Return the maximum likelihood solution of each model.

    They are the EBM N(mean, S), probabilistic PCA of known noise sigma^2, with W = sqrt(lambda_1 - sigma^2) u_1
    (Tipping & Bishop 1999), and its posterior of z given x, with the mean W^T (x - c) / (|W|^2 + sigma^2) and the
    variance sigma^2 / (|W|^2 + sigma^2).
    """
    values, axes = _axes(covariance)
    weight = np.sqrt(max(values[0] - variance, 0)) * axes[0]
    total = weight @ weight + variance
    return _centred(mean, covariance, weight, weight / total, variance / total)


def fixed_point(config, mean: np.ndarray, covariance: np.ndarray) -> Solution | None:
    """Find the parameters at which all three expected gradients are 0, given unadjusted chains of finite length.

    A Langevin step of size s on N(0, v) is x <- rho x + sqrt(2 s) N(0, 1) with rho = 1 - s / v. After K steps from a
    variance v0 the variance is rho^(2K) v0 + 2 s (1 - rho^(2K)) / (1 - rho^2), and a covariance with the start has
    shrunk by rho^K. The x-chain starts at W z and noise, of variance W^2 + start_std^2 along the first axis and
    start_std^2 along the others.
    The 1e-6 in q's divisor is left out: it would make the inference model's variance 2e-6 smaller.

    Returns:
      The solution. None if no EBM of positive variance gives x~ the variance of the data, which happens if chains are
      too short or steps too long; if a chain starts elsewhere; if a model has no data pairs to learn from; or if the
      models learn from more than the three losses.
    """
    (g_data, g_model), (e_data, e_model) = (
        (weights.data_weight, weights.model_weight) for weights in (config.loss.generator, config.loss.encoder)
    )
    loss, starts = config.loss, (config.x_chain.init, config.z_chain.init)
    others = objectives.added(config) or any(config.optimizer[name].l2 for name in Params._fields)
    needed = starts == ("generator", "encoder"), g_data, e_data, loss.energy.model_weight
    if not all(needed) or others or config.energy.spectral_norm:
        return None
    (values, axes), noise = _axes(covariance), config.generator.variance
    # Eq. 7: data_weight E[x^2] = model_weight E[x~^2].
    revised = values * loss.energy.data_weight / loss.energy.model_weight
    best = maximum_likelihood(mean, covariance, variance=noise)
    now = best.weight @ axes[0], best.slope @ axes[0], best.variance
    noise_x = config.x_chain.start_std**2
    num_x, num_z, s_z = config.x_chain.num_steps, config.z_chain.num_steps, config.z_chain.step_size
    for _ in range(100_000):
        before = weight, slope, variance = now
        kept = _kept(revised[0], weight**2 + noise_x, config.x_chain)
        if kept is None:
            return None
        model = kept**num_x * weight  # E[x~ z]

        exact = 1 / (1 + weight**2 / noise)  # the variance of p(z | x)
        r = 1 - s_z / exact
        share = r**num_z
        k = share * slope + (1 - share) * exact * weight / noise  # E[z~ | x] = k x
        spread = share**2 * variance + 2 * s_z * (1 - share**2) / (1 - r**2)  # Var[z~ | x]

        # Eq. 10 and 15: least squares over both kinds of pairs.
        data = k * values[0]  # E[x z~]
        weight = (g_data * data + g_model * model) / (g_data * (k * data + spread) + g_model)
        slope = (e_data * data + e_model * model) / (e_data * values[0] + e_model * revised[0])
        error_data = (k - slope) ** 2 * values[0] + spread
        error_model = 1 - 2 * slope * model + slope**2 * revised[0]
        variance = (e_data * error_data + e_model * error_model) / (e_data + e_model)
        now = weight, slope, variance
        if np.allclose(now, before, rtol=1e-11, atol=0):
            break
    else:
        return None
    kept = [_kept(value, noise_x + weight**2 * (i == 0), config.x_chain) for i, value in enumerate(revised)]
    if None in kept:
        return None
    variances = config.x_chain.step_size / (1 - np.array(kept))
    return _centred(mean, axes.T * variances @ axes, weight * axes[0], slope * axes[0], variance)


def learned(model: Model, mean: np.ndarray) -> Solution:
    """Read off the learned models by differentiation at the data's mean [D]."""
    at, bound, temperature = np.asarray(mean, np.float32), model.bound(), model.run_config.energy.temperature
    energy = lambda x: bound.energy(x[None])[0] / temperature
    encode = lambda x: bound.encode(x[None])[0][0, 0]
    decode = lambda z: bound.decode(z[None])[0]
    zero = np.zeros(1, np.float32)
    covariance = np.linalg.inv(np.asarray(jax.hessian(energy)(at), np.float64))
    slope = np.asarray(jax.grad(encode)(at), np.float64)
    return Solution(
        mean=at - covariance @ np.asarray(jax.grad(energy)(at), np.float64),
        covariance=covariance,
        weight=np.asarray(jax.jacobian(decode)(zero), np.float64)[:, 0],
        bias=np.asarray(decode(zero), np.float64),
        slope=slope,
        intercept=float(encode(at)) - slope @ at,
        variance=float(np.exp(bound.encode(at[None])[1][0, 0])),
    )


def divergences(
    solution: Solution, best: Solution, mean: np.ndarray, covariance: np.ndarray, *, variance: float
) -> dict[str, float]:
    """Return KL divergences in nats of a solution from maximum likelihood, by "kl_MODEL".

    The inference model's divergence is a mean over the data.
    """
    marginal = lambda of: (of.bias, np.outer(of.weight, of.weight) + variance * np.eye(len(of.weight)))
    sign = -1 if solution.weight @ best.weight < 0 else 1  # z and -z are the same model
    slope, intercept = sign * solution.slope - best.slope, sign * solution.intercept - best.intercept
    off = slope @ covariance @ slope + (slope @ mean + intercept) ** 2
    ratio = best.variance / solution.variance
    return {
        "kl_ebm": quadrature.kl_of_gaussians((best.mean, best.covariance), (solution.mean, solution.covariance)),
        "kl_generator": quadrature.kl_of_gaussians(marginal(best), marginal(solution)),
        "kl_encoder": 0.5 * (ratio - 1 - np.log(ratio) + off / solution.variance),
    }


def _parameters(solution: Solution, covariance: np.ndarray) -> dict[str, float]:
    """Return the parameters of a solution along the eigenvectors of the data's covariance."""
    _, axes = _axes(covariance)
    variances = {f"ebm_variance_{i}": axis @ solution.covariance @ axis for i, axis in enumerate(axes, 1)}
    sign = -1 if solution.weight @ axes[0] < 0 else 1
    return variances | {
        "generator_weight": np.linalg.norm(solution.weight),
        "encoder_slope": sign * solution.slope @ axes[0],
        "encoder_variance": solution.variance,
    }


def _kept(revised: float, start: float, chain) -> float | None:
    """Return rho in (0, 1) at which a chain leads from the variance `start` to `revised`, or None if no rho does.

    A larger rho gives a larger variance.
    """
    s, k = chain.step_size, chain.num_steps
    after = lambda rho: rho ** (2 * k) * start + 2 * s * np.sum(rho ** (2 * np.arange(k))) - revised
    return optimize.brentq(after, 0, 1, xtol=1e-15) if after(0) < 0 < after(1) else None


def _centred(mean, covariance, weight, slope, variance) -> Solution:
    return Solution(mean, covariance, weight, mean, slope, -slope @ mean, variance)


def _axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues [D], the largest first, and their eigenvectors as rows [D, D]."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors.T[::-1]
