"""The table of learning objectives: what each computes, which networks it trains, its weights and its metrics.

A new objective is a function in `core/losses.py` and a row in `OBJECTIVES`. The row's weights become the config fields
`loss.NAME.WEIGHT`. An objective whose weights are all 0 costs nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax

from dualmcmc_jax.core import densities, losses
from dualmcmc_jax.core.sampling import Inference, Synthesis
from dualmcmc_jax.models.build import Params


class Networks(NamedTuple):
    """The three networks, bound to parameters."""

    energy: densities.Energy
    decode: densities.Decode
    encode: densities.Encode


class Samples(NamedTuple):
    """What an iteration has sampled. All of it is constant for the losses.

    Attributes:
      x: [B, ...], data.
      model: model pairs (x~, z) of P~.
      data: data pairs (x, z~) of Q~.
      noise: [B, d], standard normals for reparameterised draws of q(z | x).
    """

    x: jax.Array
    model: Synthesis
    data: Inference
    noise: jax.Array

    @property
    def pairs(self) -> tuple[losses.Pair, losses.Pair]:
        """The data pairs (x, z~) and the model pairs (x~, z)."""
        return (self.x, self.data.z), (self.model.revised, self.model.z)


Terms = dict[str, jax.Array]


class Objective(NamedTuple):
    """One row of the table.

    Attributes:
      loss: (networks, samples, config, **weights) -> (loss, terms), see `core.losses`.
      weights: default value of each weight.
      trains: for each network that the objective trains, the weights that make it do so. The other networks are
        constants in this objective, even if the loss calls them. The energy is differentiated after the other two, and
        on fresh samples if the config asks for `loss.fresh_negatives`.
      metrics: (terms, samples, config) -> what is reported besides the loss itself.
    """

    loss: Callable[..., losses.Loss]
    weights: dict[str, float]
    trains: dict[str, tuple[str, ...]]
    metrics: Callable[..., Terms]


def _energy(networks, samples, config, **weights):
    temperature = config.energy.temperature
    return losses.energy_loss(networks.energy, samples.x, samples.model.revised, temperature=temperature, **weights)


def _generator(networks, samples, config, **weights):
    return losses.generator_loss(networks.decode, *samples.pairs, **weights)


def _encoder(networks, samples, config, **weights):
    return losses.encoder_loss(networks.encode, *samples.pairs, **weights)


def _elbo(networks, samples, config, **weights):
    variance = config.generator.variance
    return losses.elbo_loss(networks.encode, networks.decode, samples.x, samples.noise, variance=variance, **weights)


def _generated(networks, samples, config, **weights):
    return losses.generated_loss(*networks, samples.model.z, temperature=config.energy.temperature, **weights)


def _energies(terms: Terms, samples: Samples, config) -> Terms:
    """Report mean energies, before division by the temperature."""
    return {name: value for name, value in terms.items() if name.startswith("energy")}


def _errors(terms: Terms, samples: Samples, config) -> Terms:
    """Report squared errors per element of x: of the x-revision, and of the z-revision at its start and its end."""
    metrics, size = {}, samples.x[0].size
    if "error_model" in terms:
        metrics["revision_mse"] = terms["error_model"] / size
    if "error_data" in terms:
        log_p, z0 = samples.data.trace.log_density[0], samples.data.start
        start = densities.mean_squared_error(log_p, samples.x, z0, variance=config.generator.variance)
        metrics |= {"posterior_mse_start": start.mean(), "posterior_mse_end": terms["error_data"] / size}
    return metrics


def _nothing(terms: Terms, samples: Samples, config) -> Terms:
    return {}


OBJECTIVES = {
    "energy": Objective(  # Eq. 7; weights of the data and of the revised samples
        loss=_energy,
        weights={"data_weight": 1.0, "model_weight": 1.0},
        trains={"energy": ("data_weight", "model_weight")},
        metrics=_energies,
    ),
    "generator": Objective(  # Eq. 10; weights of the data pairs (x, z~) and of the model pairs (x~, z)
        loss=_generator,
        weights={"data_weight": 1.0, "model_weight": 50.0},
        trains={"generator": ("data_weight", "model_weight")},
        metrics=_errors,
    ),
    "encoder": Objective(  # Eq. 15; weights of the data pairs (x, z~) and of the model pairs (x~, z)
        loss=_encoder,
        weights={"data_weight": 1.0, "model_weight": 0.1},
        trains={"encoder": ("data_weight", "model_weight")},
        metrics=_nothing,
    ),
    "elbo": Objective(  # of a variational autoencoder, times 2 sigma^2
        loss=_elbo,
        weights={"weight": 0.0},
        trains={"generator": ("weight",), "encoder": ("weight",)},
        metrics=_nothing,
    ),
    "generated": Objective(  # KL(P, Pi); weights of the energy of g(z) and of -log q(z | g(z))
        loss=_generated,
        weights={"energy_weight": 0.0, "posterior_weight": 0.0},
        trains={"generator": ("energy_weight", "posterior_weight"), "encoder": ("posterior_weight",)},
        metrics=_energies,
    ),
}


METHOD = ("energy", "generator", "encoder")
"""The objectives of dual-MCMC teaching. The others belong to other methods."""


def added(config) -> set[str]:
    """Return the names of the objectives with a weight that do not belong to dual-MCMC teaching."""
    return {name for name in OBJECTIVES if name not in METHOD and any(config.loss[name].values())}


def trained(config) -> set[str]:
    """Return the names of the networks that at least one objective of a config trains."""
    return {
        network
        for name, objective in OBJECTIVES.items()
        for network, weights in objective.trains.items()
        if any(config.loss[name][weight] for weight in weights)
    }


def gradients(
    networks: tuple[str, ...],
    params: Params,
    samples: Samples,
    *,
    bind: Callable[[Params], Networks],
    config,
) -> tuple[dict[str, Params], Terms]:
    """Differentiate all objectives that train some of the given networks.

    The samples are constants and the networks share no parameters, so the gradient of the sum of the objectives is
    each network's own gradient. An objective that trains networks of two calls is computed in both.

    Args:
      networks: names of the networks to differentiate.
      params: the parameters of all networks.
      samples: what this iteration has sampled.
      bind: params -> Networks.
      config: the whole config.

    Returns:
      The gradient by network, and scalar metrics by name: the loss "NAME_loss" of every objective that has a term, and
      what its row reports.
    """
    rows = {name: row for name, row in OBJECTIVES.items() if row.trains.keys() & set(networks)}

    def total(learned):
        current, constant = params._replace(**learned), lax.stop_gradient(params)
        results = {}
        for name, row in rows.items():
            bound = bind(constant._replace(**{network: getattr(current, network) for network in row.trains}))
            results[name] = row.loss(bound, samples, config, **config.loss[name])
        return sum((loss for loss, _ in results.values()), start=0.0), results

    gradient, results = jax.grad(total, has_aux=True)({name: getattr(params, name) for name in networks})
    metrics = {f"{name}_loss": loss for name, (loss, terms) in results.items() if terms}
    for name, (_, terms) in results.items():
        reported = rows[name].metrics(terms, samples, config)
        if taken := metrics.keys() & reported.keys():
            raise ValueError(f"objective {name}: found the metric {min(taken)}, expected a name of its own")
        metrics |= reported
    return gradient, metrics
