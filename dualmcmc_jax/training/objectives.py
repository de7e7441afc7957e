"""What is minimized? The table of training objectives: their losses, weights, metrics and the networks they train.

A new objective is one function in `core/losses.py` and one row of `OBJECTIVES`. The weights of the row become config
fields named `loss.NAME.WEIGHT`, where NAME is the name of the row. If all weights of an objective are 0, it is not
computed.

The config field `loss.own.function` adds a function of the user, which is an objective named "own".
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dualmcmc_jax import own_code
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


OWN = {"function": "", "weight": 1.0, "trains": "energy,generator,encoder"}
"""The fields of `loss.own` with their default values."""


def names(trains: str) -> tuple[str, ...]:
    """Return the networks in a list such as "generator,encoder"; () if one of the words names no network."""
    found = tuple(word.strip() for word in trains.split(","))
    return found if set(found) <= set(Params._fields) else ()


def rows(config) -> dict[str, Objective]:
    """Return the objectives of a config by name: those of the table and, if there is one, that of the user.

    The function of the user is imported when its loss is computed.

    Args:
      config: the full config (uses the section loss.own).
    """
    own = config.loss.own
    if not own.function:
        return OBJECTIVES
    trains = dict.fromkeys(names(own.trains), ("weight",))
    return OBJECTIVES | {"own": Objective(loss=_own, weights={"weight": 1.0}, trains=trains, metrics=_all_terms)}


def weights(config, name: str) -> dict[str, float]:
    """Return the weights of an objective by their names.

    Args:
      config: the full config (uses the section loss).
      name: name of the objective.
    """
    return {"weight": config.loss.own.weight} if name == "own" else dict(config.loss[name])


def own_function(config) -> Callable[..., jax.Array] | None:
    """Return the function that `loss.own.function` names, or None if the field is empty.

    Args:
      config: the full config (uses the section loss.own).

    Raises:
      ValueError: the function cannot be imported.
    """
    name = config.loss.own.function
    function = own_code.find("loss.own.function", name) if name else None
    if name and not callable(function):
        expected = "a function (networks, samples, config) -> loss"
        raise ValueError(f"loss.own.function: found {type(function).__name__} in {name!r}, expected {expected}")
    return function


def _own(networks, samples, config, *, weight):
    if not weight:
        return 0.0, {}
    name = config.loss.own.function
    try:
        loss = jnp.asarray(own_function(config)(networks, samples, config))
    except Exception as error:
        expected = f"no error in {name}(networks, samples, config)"
        raise ValueError(f"loss.own.function: found {own_code.problem(error)}, expected {expected}") from error
    if loss.shape or not jnp.issubdtype(loss.dtype, jnp.floating):
        found = f"a loss of shape {loss.shape} and type {loss.dtype} from {name}"
        raise ValueError(f"loss.own.function: found {found}, expected one floating-point number")
    return weight * loss, {"own": loss}


def added(config) -> set[str]:
    """Return the names of the objectives that a config adds to those of Dual-MCMC Teaching.

    Args:
      config: the full config (uses the section loss).

    Returns:
      The names of the objectives outside `METHOD` that have a nonzero weight.
    """
    return {name for name in rows(config) if name not in METHOD and any(weights(config, name).values())}


def trained(config) -> set[str]:
    """Return the names of the networks that the objectives of a config train.

    Args:
      config: the full config (uses the section loss).
    """
    return {
        network
        for name, objective in rows(config).items()
        for network, of_network in objective.trains.items()
        if any(weights(config, name)[weight] for weight in of_network)
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
    chosen = {name: row for name, row in rows(config).items() if row.trains.keys() & set(networks)}

    def total(trained_params):
        current, constant = params._replace(**trained_params), lax.stop_gradient(params)
        results = {}
        for name, row in chosen.items():
            bound = bind(constant._replace(**{network: getattr(current, network) for network in row.trains}))
            results[name] = row.loss(bound, samples, config, **weights(config, name))
        return sum((loss for loss, _ in results.values()), start=0.0), results

    gradient, results = jax.grad(total, has_aux=True)({name: getattr(params, name) for name in networks})
    metrics = {f"{name}_loss": loss for name, (loss, terms) in results.items() if terms}
    for name, (_, terms) in results.items():
        added_metrics = chosen[name].metrics(terms, samples, config)
        if duplicates := metrics.keys() & added_metrics.keys():
            raise ValueError(f"objective {name}: found the metric {min(duplicates)}, expected a name not in use")
        metrics |= added_metrics
    return gradient, metrics
