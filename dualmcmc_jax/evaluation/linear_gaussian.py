"""Does training of linear-Gaussian models reach the closed-form solution?

The EBM has a quadratic energy, the generator is x = W z + c with one latent, and the inference model has the mean
m x + e. S is the covariance of the training data, lambda_1 >= lambda_2 are the eigenvalues of S, and u_1, u_2 the
eigenvectors. "Axis 1" is the direction of u_1.
"""

from typing import NamedTuple

import jax
import numpy as np
from scipy import optimize

from dualmcmc_jax import models, own_code
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.metrics import quadrature
from dualmcmc_jax.model import Model
from dualmcmc_jax.models import Params
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.training import objectives

SECTIONS = (
    Section(
        title="Closed-form solution",
        note=(
            "Learned parameters next to two reference solutions. The fixed point is the result of infinite training "
            "with this config's losses and its finite, unadjusted chains; learned parameters should be close to it. "
            "The fixed point is close to maximum likelihood if the losses use no model pairs and the chains are long "
            "with small steps. KL divergences are KL(maximum likelihood, column); axes are eigenvectors of the "
            "training data's covariance."
        ),
        metrics={
            "linear/{group}/ebm_variance_1": Metric("EBM, variance along axis 1"),
            "linear/{group}/ebm_variance_2": Metric("EBM, variance along axis 2"),
            "linear/{group}/generator_weight": Metric("Generator, norm of the weight W"),
            "linear/{group}/encoder_slope": Metric("Inference model, slope along axis 1"),
            "linear/{group}/encoder_variance": Metric("Inference model, variance"),
            "linear/{group}/kl_ebm": Metric("EBM, KL divergence", "lower", "nats"),
            "linear/{group}/kl_generator": Metric("Generator, KL divergence", "lower", "nats"),
            "linear/{group}/kl_encoder": Metric("Inference model, KL divergence", "lower", "nats"),
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
    """Parameters of the three models of x [D], in float64.

    Attributes:
      mean: [D], mean of the EBM.
      covariance: [D, D], covariance of the EBM.
      weight: [D], weight W of the generator.
      bias: [D], bias c of the generator.
      slope: [D], slope m of the inference model's mean.
      intercept: intercept e of the inference model's mean.
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
    """Return whether all models are linear-Gaussian, with one latent and two-dimensional data."""
    if own_code.objects({name: config[name].kind for name in models.Nets._fields}):
        return False
    nets = models.build(config)
    linear = nets.energy.is_gaussian and nets.generator.is_affine and nets.encoder.is_affine
    return linear and config.generator.latent_dim == 1 and tuple(config.data.shape) == (2,)


def measure(model: Model, inputs: Inputs) -> Measured:
    """Compare the learned models with the fixed point and with maximum likelihood; see `compare`."""
    return Measured(compare(model, inputs.dataset.train))


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict:
    """Return no figures, because all results are numbers."""
    return {}


def compare(model: Model, train: np.ndarray) -> dict[str, float]:
    """Compute the parameters of the learned models, of the fixed point and of maximum likelihood.

    Args:
      model: the model.
      train: [N, D], the training data.

    Returns:
      Parameters, and KL divergences from maximum likelihood, by "linear/SOLUTION/PARAMETER". The numbers of the fixed
      point are missing if `fixed_point` returns None.
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
    """Return the maximum-likelihood solution of each model.

    - The EBM is N(mean, S).
    - The generator is probabilistic PCA with known noise variance sigma^2: W = sqrt(lambda_1 - sigma^2) u_1 and
      c = mean (Tipping & Bishop, 1999).
    - The inference model is the generator's posterior of z given x, which has the mean W^T (x - c) / (|W|^2 + sigma^2)
      and the variance sigma^2 / (|W|^2 + sigma^2).

    Args:
      mean: [D], mean of the training data.
      covariance: [D, D], covariance S of the training data.
      variance: noise variance sigma^2 of the generator.
    """
    values, axes = _axes(covariance)
    weight = np.sqrt(max(values[0] - variance, 0)) * axes[0]
    total = weight @ weight + variance
    return _centered(mean, covariance, weight, weight / total, variance / total)


def fixed_point(config, mean: np.ndarray, covariance: np.ndarray) -> Solution | None:
    """Find the parameters at which all three expected gradients are 0, given unadjusted chains of finite length.

    A Langevin step of size s on N(0, v) is x <- rho x + sqrt(2 s) N(0, 1) with rho = 1 - s / v. After K steps, a chain
    that started with variance v0 has the variance rho^(2K) v0 + 2 s (1 - rho^(2K)) / (1 - rho^2), and its covariance
    with the initial state is rho^K v0. The x-chain starts at W z plus noise: its initial variance is
    |W|^2 + start_std^2 along axis 1 and start_std^2 along the other axes. The constant 1e-6 in the divisor of
    log q(z | x) is neglected; it would reduce the variance of the inference model by 2e-6.

    Args:
      config: the whole config of the run.
      mean: [D], mean of the training data.
      covariance: [D, D], covariance S of the training data.

    Returns:
      The solution, or None in the following cases:

      - there is no EBM whose revised samples x~ satisfy Eq. 7, because the x-chain is too short or its steps are too
        long;
      - the x-chain does not start at the generator, or the z-chain does not start at the inference model;
      - the data weight of the generator or of the inference model, or the model weight of the energy, is 0;
      - the initial states of the x-chain are resampled, its scores are clipped, or a chain is not a Langevin chain;
      - training uses L2, weight decay, spectral normalization, or objectives besides Eq. 7, 10 and 15;
      - training adds noise to the data;
      - the iteration over the parameters does not converge.
    """
    (g_data, g_model), (e_data, e_model) = (
        (weights.data_weight, weights.model_weight) for weights in (config.loss.generator, config.loss.encoder)
    )
    loss, starts = config.loss, (config.x_chain.init, config.z_chain.init)
    decays = [config.optimizer[name][field] for name in Params._fields for field in ("l2", "weight_decay")]
    more_terms = objectives.added(config) or any(decays)
    unadjusted = (config.x_chain.sampler, config.z_chain.sampler) == ("langevin", "langevin")
    needed = (
        starts == ("generator", "encoder"),
        unadjusted,
        not config.x_chain.resample,
        not config.x_chain.clip_score,
        not config.data.noise_std,
        g_data,
        e_data,
        loss.energy.model_weight,
    )
    if not all(needed) or more_terms or config.energy.spectral_norm:
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
        rho = _solve_rho(revised[0], weight**2 + noise_x, config.x_chain)
        if rho is None:
            return None
        model = rho**num_x * weight  # E[x~ z]

        exact = 1 / (1 + weight**2 / noise)  # Var[z | x] under the generator
        rho_z = 1 - s_z / exact
        decay = rho_z**num_z
        k = decay * slope + (1 - decay) * exact * weight / noise  # E[z~ | x] = k x
        spread = decay**2 * variance + 2 * s_z * (1 - decay**2) / (1 - rho_z**2)  # Var[z~ | x]

        # Eq. 10 and 15: weighted least squares over data pairs and model pairs.
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
    rhos = [_solve_rho(value, noise_x + weight**2 * (i == 0), config.x_chain) for i, value in enumerate(revised)]
    if None in rhos:
        return None
    variances = config.x_chain.step_size / (1 - np.array(rhos))
    return _centered(mean, axes.T * variances @ axes, weight * axes[0], slope * axes[0], variance)


def learned(model: Model, mean: np.ndarray) -> Solution:
    """Return the parameters of the learned models, from derivatives of the networks at the mean [D] of the data."""
    center, bound, temperature = np.asarray(mean, model.dtype), model.bound(), model.run_config.energy.temperature
    energy = lambda x: bound.energy(x[None])[0] / temperature
    encode = lambda x: bound.encode(x[None])[0][0, 0]
    decode = lambda z: bound.decode(z[None])[0]
    zero = np.zeros(1, model.dtype)
    covariance = np.linalg.inv(np.asarray(jax.hessian(energy)(center), np.float64))
    slope = np.asarray(jax.grad(encode)(center), np.float64)
    return Solution(
        mean=center - covariance @ np.asarray(jax.grad(energy)(center), np.float64),
        covariance=covariance,
        weight=np.asarray(jax.jacobian(decode)(zero), np.float64)[:, 0],
        bias=np.asarray(decode(zero), np.float64),
        slope=slope,
        intercept=float(encode(center)) - slope @ center,
        variance=float(np.exp(bound.encode(center[None])[1][0, 0])),
    )


def divergences(
    solution: Solution, best: Solution, mean: np.ndarray, covariance: np.ndarray, *, variance: float
) -> dict[str, float]:
    """Return KL(best, solution) in nats of each of the three models.

    Args:
      solution: the solution to compare with maximum likelihood.
      best: the maximum-likelihood solution.
      mean: [D], mean of the training data.
      covariance: [D, D], covariance of the training data.
      variance: noise variance sigma^2 of the generator.

    Returns:
      The divergences of pi(x), p(x) and q(z | x) by "kl_ebm", "kl_generator" and "kl_encoder". The divergence of
      q(z | x) is a mean over the training data.
    """
    marginal = lambda s: (s.bias, np.outer(s.weight, s.weight) + variance * np.eye(len(s.weight)))
    sign = -1 if solution.weight @ best.weight < 0 else 1  # the sign of z is arbitrary
    slope, intercept = sign * solution.slope - best.slope, sign * solution.intercept - best.intercept
    squared_error = slope @ covariance @ slope + (slope @ mean + intercept) ** 2
    ratio = best.variance / solution.variance
    return {
        "kl_ebm": quadrature.kl_of_gaussians((best.mean, best.covariance), (solution.mean, solution.covariance)),
        "kl_generator": quadrature.kl_of_gaussians(marginal(best), marginal(solution)),
        "kl_encoder": 0.5 * (ratio - 1 - np.log(ratio) + squared_error / solution.variance),
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


def _solve_rho(revised: float, start: float, chain) -> float | None:
    """Return the rho in (0, 1) with which a chain changes the variance `start` to `revised`, or None if there is none.

    The variance after the chain increases with rho, so the solution is unique.
    """
    s, k = chain.step_size, chain.num_steps
    excess = lambda rho: rho ** (2 * k) * start + 2 * s * np.sum(rho ** (2 * np.arange(k))) - revised
    return optimize.brentq(excess, 0, 1, xtol=1e-15) if excess(0) < 0 < excess(1) else None


def _centered(mean, covariance, weight, slope, variance) -> Solution:
    """Return the solution whose EBM and generator have the mean of the data."""
    return Solution(mean, covariance, weight, mean, slope, -slope @ mean, variance)


def _axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues [D] in descending order, and the eigenvectors as rows [D, D]."""
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors.T[::-1]
