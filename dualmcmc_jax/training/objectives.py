"""What is minimized? The table of training objectives: their losses, weights, metrics and the networks they train.

A new objective is one function in `core/losses.py` and one row of `OBJECTIVES`. The weights of the row become config
fields named `loss.NAME.WEIGHT`, where NAME is the name of the row. If all weights of an objective are 0, it is not
computed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax

from dualmcmc_jax.core import densities, losses
from dualmcmc_jax.core.sampling import Inference, Synthesis
from dualmcmc_jax.models.build import Params


class Networks(NamedTuple):
    """The three networks, bound to parameters.

    Attributes:
      energy: x [B, ...] -> energy [B].
      decode: z [B, d] -> g(z) [B, ...].
      encode: x [B, ...] -> mean [B, d] and log variance [B, d] of q(z | x).
    """

    energy: densities.Energy
    decode: densities.Decode
    encode: densities.Encode


class Samples(NamedTuple):
    """The samples of one update. The losses treat them as constants.

    Attributes:
      x: [B, ...] data.
      model: samples of P~, which contain the model pairs (x~, z).
      data: samples of Q~ given x, which contain the latents z~ of the data pairs (x, z~).
      noise: [B, d] standard normal numbers for reparameterized draws from q(z | x).
    """

    x: jax.Array
    model: Synthesis
    data: Inference
    noise: jax.Array

    @property
    def pairs(self) -> tuple[losses.Pair, losses.Pair]:
        """The data pairs (x, z~) of Q~ and the model pairs (x~, z) of P~."""
        return (self.x, self.data.z), (self.model.revised, self.model.z)

    @property
    def model_mask(self) -> jax.Array | None:
        """False for model pairs whose z does not come from the prior; None if all do. See `core.resampling`."""
        return None if self.model.starts is None else self.model.starts.from_prior


Terms = dict[str, jax.Array]


class Objective(NamedTuple):
    """A training objective: one row of `OBJECTIVES`.

    Attributes:
      loss: (networks, samples, config, **weights) -> (loss, terms). The terms are named, unweighted parts of the loss,
        as the functions of `core.losses` return them.
      weights: the names of the weights, with their default values.
      trains: the networks that the objective trains. A dict from the name of each network to the names of weights. The
        network is trained if at least one of these weights is nonzero. Networks that are not listed are constants in
        this objective, even if the loss calls them. The gradient of the energy is computed after the gradients of the
        other networks. With `loss.fresh_negatives`, the gradient of the energy uses samples of the updated generator.
      metrics: (terms, samples, config) -> metrics that are logged in addition to the loss.
    """

    loss: Callable[..., losses.Loss]
    weights: dict[str, float]
    trains: dict[str, tuple[str, ...]]
    metrics: Callable[..., Terms]


def _energy(networks, samples, config, **weights):
    temperature = config.energy.temperature
    return losses.energy_loss(networks.energy, samples.x, samples.model.revised, temperature=temperature, **weights)


def _generator(networks, samples, config, **weights):
    return losses.generator_loss(networks.decode, *samples.pairs, model_mask=samples.model_mask, **weights)


def _encoder(networks, samples, config, **weights):
    return losses.encoder_loss(networks.encode, *samples.pairs, model_mask=samples.model_mask, **weights)


def _elbo(networks, samples, config, **weights):
    variance = config.generator.variance
    return losses.elbo_loss(networks.encode, networks.decode, samples.x, samples.noise, variance=variance, **weights)


def _generated(networks, samples, config, **weights):
    return losses.generated_loss(*networks, samples.model.z, temperature=config.energy.temperature, **weights)


def _energy_penalty(networks, samples, config, **weights):
    temperature = config.energy.temperature
    states = samples.x, samples.model.revised
    return losses.energy_penalty_loss(networks.energy, *states, temperature=temperature, **weights)


def _gradient_penalty(networks, samples, config, **weights):
    temperature = config.energy.temperature
    states = samples.x, samples.model.revised
    return losses.gradient_penalty_loss(networks.energy, *states, temperature=temperature, **weights)


def _energy_metrics(terms: Terms, samples: Samples, config) -> Terms:
    """Return the mean energies, before division by the temperature."""
    return {name: value for name, value in terms.items() if name.startswith("energy")}


def _error_metrics(terms: Terms, samples: Samples, config) -> Terms:
    """Return mean squared errors per element of x.

    revision_mse is the squared difference |x~ - g(z)|^2 of the revised and the generated samples. posterior_mse_start
    and posterior_mse_end are the reconstruction errors of the data at the start and at the end of the z-chain.
    """
    metrics, size = {}, samples.x[0].size
    if "error_model" in terms:
        metrics["revision_mse"] = terms["error_model"] / size
    if "error_data" in terms:
        log_p, z0 = samples.data.trace.log_density[0], samples.data.start
        start = densities.mean_squared_error(log_p, samples.x, z0, variance=config.generator.variance)
        metrics |= {"posterior_mse_start": start.mean(), "posterior_mse_end": terms["error_data"] / size}
    return metrics


def _no_metrics(terms: Terms, samples: Samples, config) -> Terms:
    return {}


def _all_terms(terms: Terms, samples: Samples, config) -> Terms:
    return terms


OBJECTIVES = {
    # Eq. 7. data_weight: mean energy of the data x. model_weight: mean energy of the revised samples x~.
    "energy": Objective(
        loss=_energy,
        weights={"data_weight": 1.0, "model_weight": 1.0},
        trains={"energy": ("data_weight", "model_weight")},
        metrics=_energy_metrics,
    ),
    # Eq. 10. data_weight: squared error of the data pairs (x, z~). model_weight: that of the model pairs (x~, z).
    "generator": Objective(
        loss=_generator,
        weights={"data_weight": 1.0, "model_weight": 50.0},
        trains={"generator": ("data_weight", "model_weight")},
        metrics=_error_metrics,
    ),
    # Eq. 15. data_weight: mean -log q(z~ | x) of the data pairs. model_weight: mean -log q(z | x~) of the model pairs.
    "encoder": Objective(
        loss=_encoder,
        weights={"data_weight": 1.0, "model_weight": 0.1},
        trains={"encoder": ("data_weight", "model_weight")},
        metrics=_no_metrics,
    ),
    # Baselines only: the loss of a variational autoencoder, times 2 sigma^2.
    "elbo": Objective(
        loss=_elbo,
        weights={"weight": 0.0},
        trains={"generator": ("weight",), "encoder": ("weight",)},
        metrics=_no_metrics,
    ),
    # Baselines only: KL(P, Pi). energy_weight: mean energy of g(z). posterior_weight: mean -log q(z | g(z)).
    "generated": Objective(
        loss=_generated,
        weights={"energy_weight": 0.0, "posterior_weight": 0.0},
        trains={"generator": ("energy_weight", "posterior_weight"), "encoder": ("posterior_weight",)},
        metrics=_energy_metrics,
    ),
    # Stability (docs/stability.md). weight: squared energies of the data x and of the revised samples x~.
    "energy_penalty": Objective(
        loss=_energy_penalty,
        weights={"weight": 0.0},
        trains={"energy": ("weight",)},
        metrics=_all_terms,
    ),
    # Stability. weight: squared norms of the gradients of the energy at the data x and at the revised samples x~.
    "gradient_penalty": Objective(
        loss=_gradient_penalty,
        weights={"weight": 0.0},
        trains={"energy": ("weight",)},
        metrics=_all_terms,
    ),
}


METHOD = ("energy", "generator", "encoder")
"""Names of the objectives of Dual-MCMC Teaching."""
PENALTIES = ("energy_penalty", "gradient_penalty")
"""Names of the objectives that keep the training of the energy stable. The remaining objectives belong to baselines."""


def added(config) -> set[str]:
    """Return the names of the objectives that a config adds to those of Dual-MCMC Teaching.

    Args:
      config: the full config (uses the section loss).

    Returns:
      The names of the objectives outside `METHOD` that have a nonzero weight.
    """
    return {name for name in OBJECTIVES if name not in METHOD and any(config.loss[name].values())}


def trained(config) -> set[str]:
    """Return the names of the networks that the objectives of a config train.

    Args:
      config: the full config (uses the section loss).
    """
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
    """Compute the gradients of the given networks.

    The samples are constants and the networks share no parameters. One backward pass through the sum of the objectives
    therefore yields the gradient of each network (Eq. 7, 10 and 15). The sum contains all objectives that train at
    least one of the given networks. An objective that trains several networks is computed again in every call that
    asks for one of these networks.

    Args:
      networks: names of the networks whose gradients are wanted.
      params: the parameters of all networks.
      samples: the samples of this update.
      bind: params -> Networks.
      config: the full config.

    Returns:
      The gradient of each network by its name, and scalar metrics by their names. The metrics are the loss "NAME_loss"
      of every objective that has a nonzero weight, and the metrics of its row.

    Raises:
      ValueError: two objectives use the same name for a metric.
    """
    rows = {name: row for name, row in OBJECTIVES.items() if row.trains.keys() & set(networks)}

    def total(trained_params):
        current, constant = params._replace(**trained_params), lax.stop_gradient(params)
        results = {}
        for name, row in rows.items():
            bound = bind(constant._replace(**{network: getattr(current, network) for network in row.trains}))
            results[name] = row.loss(bound, samples, config, **config.loss[name])
        return sum((loss for loss, _ in results.values()), start=0.0), results

    gradient, results = jax.grad(total, has_aux=True)({name: getattr(params, name) for name in networks})
    metrics = {f"{name}_loss": loss for name, (loss, terms) in results.items() if terms}
    for name, (_, terms) in results.items():
        added_metrics = rows[name].metrics(terms, samples, config)
        if duplicates := metrics.keys() & added_metrics.keys():
            raise ValueError(f"objective {name}: found the metric {min(duplicates)}, expected a name not in use")
        metrics |= added_metrics
    return gradient, metrics
