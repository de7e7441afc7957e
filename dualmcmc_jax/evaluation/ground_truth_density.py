"""A model beside the known density of its data."""

from typing import NamedTuple

import jax
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.core import densities
from dualmcmc_jax.core.langevin import chain_keys, langevin
from dualmcmc_jax.core.sampling import infer, synthesize
from dualmcmc_jax.data import toy2d
from dualmcmc_jax.evaluation.drawing import at_test_time
from dualmcmc_jax.metrics import acceptance, marginal_likelihood, quadrature
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.step import data_settings, model_settings

NUM_CHAINS = 10_000
"""Chains of a diagnosis; a variance of theirs has a standard error of about 1%."""
NUM_HELD_OUT = 1000


class Known(NamedTuple):
    """What `compare` found.

    Attributes:
      metrics: by "density/MODEL/NAME" and "chain/CHAIN/NAME".
      half_width: of the square.
      log_densities: of the data and the EBM on the cells of the square, [side, side] by name, x1 first.
    """

    metrics: dict[str, float]
    half_width: float
    log_densities: dict[str, np.ndarray]


def of(config) -> toy2d.Density | None:
    """The known density of a config's data, if there is one."""
    kind, _, name = config.data.source.partition(":")
    return toy2d.density(name) if kind == "toy2d" else None


def compare(
    config, truth: toy2d.Density, params: Params, held_out: np.ndarray, kept: dict[str, np.ndarray], *, seed: int
) -> Known:
    """KL divergences by quadrature, log-likelihoods of held_out [N, 2], modes, and what the chains get wrong.

    kept: samples [M, 2] by the name of their model.
    """
    config = at_test_time(config)
    nets = models.build(config)
    decode, energy = nets.generator.bind(params.generator), nets.energy.bind(params.energy)
    temperature = config.energy.temperature
    cells = quadrature.grid(truth.half_width)
    components = truth.components(cells.x)
    of_cell = components.argmax(axis=1)
    log_p = np.logaddexp.reduce(components, axis=1) - np.log(truth.num_components)
    log_f = jax.jit(lambda x: densities.log_ebm(x, energy, temperature=temperature))
    log_q = quadrature.normalized(log_f(cells.x.astype(np.float32)), cells.area)
    found = {
        "density/ebm/kl_data_model": quadrature.kl_divergence(log_p, log_q, cells.area),
        "density/ebm/kl_model_data": quadrature.kl_divergence(log_q, log_p, cells.area),
    }

    x = held_out[:NUM_HELD_OUT]
    log_z = np.asarray(log_f(cells.x[:1].astype(np.float32)), np.float64)[0] - log_q[0]
    found["density/data/log_likelihood"] = float(truth.log_density(x).mean())
    found["density/ebm/log_likelihood"] = float(np.asarray(log_f(x), np.float64).mean() - log_z)
    if config.generator.latent_dim == 2:
        of_x = marginal_likelihood.quadrature(decode, x, variance=config.generator.variance)
        found["density/generator/log_likelihood"] = float(of_x.mean())
        found["density/generator/kl_data_model"] = float(truth.log_density(x).mean() - of_x.mean())
    estimate, size = marginal_likelihood.meter(config)(params, x, seed=seed)
    found["density/generator/log_likelihood_by_importance"] = float(estimate.mean())
    found["density/generator/effective_sample_size_median"] = float(np.median(size))
    found["density/generator/effective_sample_size_5_percent"] = float(np.percentile(size, 5))

    share = np.bincount(of_cell, np.exp(log_q) * cells.area, truth.num_components)
    shares = {"ebm": share}
    for name, samples in kept.items():
        counts = np.bincount(truth.components(samples).argmax(axis=1), minlength=truth.num_components)
        shares[name] = counts / len(samples)
    for name, share in shares.items():
        found[f"density/{name}/missed_modes"] = int(np.sum(share * truth.num_components < 0.1))
        found[f"density/{name}/smallest_mode"] = float(share.min() * truth.num_components)

    found |= _chains(config, nets, params, x, seed=seed)
    start = quadrature.sample(np.random.RandomState(seed), cells, log_q, NUM_CHAINS).astype(np.float32)
    key = jax.random.fold_in(jax.random.key(seed), _STREAM)
    chain = {"num_steps": 10 * max(1, config.x_chain.num_steps), "step_size": config.x_chain.step_size}
    end, _ = jax.jit(lambda keys, x: langevin(keys, x, log_f, **chain))(chain_keys(key, np.arange(NUM_CHAINS)), start)
    exact = _variance_within(cells.x, of_cell, np.exp(log_q) * cells.area)
    end = np.asarray(end, np.float64)
    drifted = _variance_within(end, truth.components(end).argmax(axis=1), np.full(NUM_CHAINS, 1 / NUM_CHAINS))
    found["chain/x/variance_bias"] = drifted / exact - 1

    side = round(len(cells.x) ** 0.5)
    square = {"data": log_p.reshape(side, side), "ebm": log_q.reshape(side, side)}
    return Known(found, truth.half_width, square)


def _chains(config, nets, params, x, *, seed) -> dict[str, float]:
    """The share of each chain's steps that a Metropolis correction would have accepted."""
    decode, energy = nets.generator.bind(params.generator), nets.energy.bind(params.energy)
    encode = nets.encoder.bind(params.encoder)
    variance, temperature = config.generator.variance, config.energy.temperature
    keys = chain_keys(jax.random.fold_in(jax.random.key(seed), _STREAM + 1), np.arange(len(x)))

    @jax.jit
    def rates(keys, x):
        found = {}
        if config.x_chain.num_steps:
            model = synthesize(keys, decode, energy, **model_settings(config), keep_every=1)
            log_f = lambda x: densities.log_ebm(x, energy, temperature=temperature)
            found["x"] = acceptance.rate(model.trace.states, log_f, step_size=config.x_chain.step_size)
        data = infer(keys, encode, decode, x, **data_settings(config), keep_every=1)
        log_joint = lambda z: densities.log_joint(x, z, decode, variance=variance)
        found["z"] = acceptance.rate(data.trace.states, log_joint, step_size=config.z_chain.step_size)
        return found

    return {f"chain/{name}/acceptance": float(rate) for name, rate in rates(keys, x).items()}


def _variance_within(x: np.ndarray, component: np.ndarray, weight: np.ndarray) -> float:
    """The mean square distance from the mean of the own component: of x [N, 2] with weights [N] that add up to 1."""
    total = np.bincount(component, weight)
    mean = np.stack([np.bincount(component, weight * column) for column in x.T], axis=-1)
    mean = mean / np.maximum(total, 1e-300)[:, None]
    return float(np.sum(weight * np.sum((x - mean[component]) ** 2, axis=-1)))


_STREAM = 2028
"""Keeps this randomness apart from that of training and of other measures of the same seed."""
