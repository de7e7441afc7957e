"""One iteration of dual-MCMC teaching (Sec. 3.1): both revisions, three losses, three updates."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from dualmcmc_jax.core import densities, losses
from dualmcmc_jax.core.langevin import chain_keys, normal
from dualmcmc_jax.core.sampling import Inference, infer, synthesize
from dualmcmc_jax.data.batches import Batch, to_float
from dualmcmc_jax.models.build import Nets
from dualmcmc_jax.models.spectral_norm import normalize, power_iterate
from dualmcmc_jax.training import persistent_chains
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.state import TrainState, param_dtype, usable

AXIS = "batch"


def train_step(
    state: TrainState, batch: Batch, *, nets: Nets, optimizers: Params, config
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of all three networks, on one device of the pmapped axis "batch".

    Args:
      state: the train state, the same on every device.
      batch: this device's share of the examples, [B, ...].
      nets: from `models.build(config, axis_name="batch")`.
      optimizers: from `optimizers.build`.
      config: the whole config; resolved while tracing.

    Returns:
      The next state and the scalar metrics of this step, both the same on every device.
    """
    params, loss, temperature = state.params, config.loss, config.energy.temperature
    caution = jnp.asarray(config.health.learning_rate_factor, param_dtype(config)) ** state.attempt
    vectors = power_iterate(params.energy, state.vectors)
    energy = lambda p: partial(nets.energy.apply, normalize(p, vectors))
    decode = lambda p: partial(nets.generator.apply, p)
    encode = lambda p: partial(nets.encoder.apply, p)

    x = to_float(batch.x, param_dtype(config))  # [B, ...]
    index = lax.axis_index(AXIS) * x.shape[0] + jnp.arange(x.shape[0])
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    model_key, data_key, fresh_key, elbo_key, restart_key = jax.random.split(step_key, 5)
    places = persistent_chains.places(
        state.chains, state.step, index, batch.example, batch_size=config.train.batch_size
    )
    starts = persistent_chains.starts(chain_keys(restart_key, index), state.chains, places)

    # P~: z ~ p(z), x~ = K_x steps on pi_alpha from g(z).   Q~: x ~ data, z~ = K_z steps on p_theta(z | x).
    decode_bound = nets.generator.bind(params.generator)
    to_x, to_z = model_settings(config) | starts.x, data_settings(config) | starts.z
    sample = partial(synthesize, energy=nets.energy.bind(normalize(params.energy, vectors)), **to_x)
    model = sample(chain_keys(model_key, index), decode_bound)
    data = infer(chain_keys(data_key, index), encode(params.encoder), decode_bound, x, **to_z)
    noise = normal(chain_keys(elbo_key, index), model.z.shape[1:], model.z.dtype)

    def teach(generator, encoder):
        pairs, g, q = ((x, data.z), (model.revised, model.z)), decode(generator), encode(encoder)
        found = {
            "generator": losses.generator_loss(g, *pairs, **loss.generator),
            "encoder": losses.encoder_loss(q, *pairs, **loss.encoder),
            "elbo": losses.elbo_loss(q, g, x, noise, variance=config.generator.variance, **loss.elbo),
            "generated": losses.generated_loss(
                energy(params.energy), g, q, model.z, temperature=temperature, **loss.generated
            ),
        }
        return sum((value for value, _ in found.values()), start=0.0), found

    def contrast(p, revised):
        return losses.energy_loss(energy(p), x, revised, temperature=temperature, **loss.energy)

    taught, found = jax.grad(teach, argnums=(0, 1), has_aux=True)(params.generator, params.encoder)
    update, revised = partial(apply_gradient, factor=caution), model.revised
    if loss.fresh_negatives:
        taught = _mean(taught)
        generator, _ = update(optimizers.generator, taught[0], state.opt_state.generator, params.generator)
        revised = sample(chain_keys(fresh_key, index), nets.generator.bind(generator)).revised
    (energy_loss, energies), energy_gradient = jax.value_and_grad(contrast, has_aux=True)(params.energy, revised)

    found["energy"] = energy_loss, energies
    metrics = metrics_of(found, x, data, variance=config.generator.variance)
    if loss.fresh_negatives:
        energy_gradient, metrics = _mean((energy_gradient, metrics))
    else:
        energy_gradient, taught, metrics = _mean((energy_gradient, taught, metrics))
    gradients = Params(energy_gradient, *taught)

    updated = [update(*args) for args in zip(optimizers, gradients, state.opt_state, params, strict=True)]
    new_params, opt_state = (Params(*parts) for parts in zip(*updated, strict=True))
    average = optax.incremental_update(usable(new_params, vectors), state.average, 1 - config.train.ema_decay)
    norms = {f"{name}_gradient_norm": optax.tree.norm(g) for name, g in gradients._asdict().items()}
    chains = persistent_chains.keep(state.chains, places, persistent_chains.Chains(revised, data.z), axis_name=AXIS)
    state = TrainState(state.step + 1, state.key, new_params, average, opt_state, vectors, state.attempt, chains)
    return state, metrics | norms


def metrics_of(
    found: dict[str, losses.Loss], x: jax.Array, data: Inference, *, variance: float
) -> dict[str, jax.Array]:
    """The losses that have terms, by name, and of those terms the energies and, per element of x, squared errors."""
    terms = {name: value for _, parts in found.values() for name, value in parts.items()}
    metrics = {f"{name}_loss": value for name, (value, parts) in found.items() if parts}
    metrics |= {name: value for name, value in terms.items() if name.startswith("energy")}
    if "error_model" in terms:
        metrics["revision_mse"] = terms["error_model"] / x[0].size
    if "error_data" in terms:
        start = densities.mean_squared_error(data.trace.log_density[0], x, data.start, variance=variance)
        metrics["posterior_mse_start"], metrics["posterior_mse_end"] = start.mean(), terms["error_data"] / x[0].size
    return metrics


def chain_settings(config) -> dict:
    """The keyword arguments of `revise_x` that a config holds."""
    return {
        "num_steps": config.x_chain.num_steps,
        "step_size": config.x_chain.step_size,
        "temperature": config.energy.temperature,
        "unroll": _unroll(config, config.x_chain, config.energy),
    }


def model_settings(config) -> dict:
    """The keyword arguments of `synthesize` that a config holds."""
    return chain_settings(config) | {
        "init": _init(config.x_chain),
        "start_std": config.x_chain.start_std,
        "latent_dim": config.generator.latent_dim,
        "dtype": param_dtype(config),
    }


def data_settings(config) -> dict:
    """The keyword arguments of `infer` that a config holds."""
    chain = config.z_chain
    return {
        "num_steps": chain.num_steps,
        "step_size": chain.step_size,
        "variance": config.generator.variance,
        "init": _init(chain),
        "unroll": _unroll(config, chain, config.generator),
    }


def _init(chain) -> str:
    """Where a chain starts that is nobody's sequel: persistent ones began at noise."""
    return "noise" if chain.init == "persistent" else chain.init


def _unroll(config, chain, net) -> int:
    """On a CPU, XLA runs the convolutions of a loop on one thread: up to ten times slower than without the loop."""
    whole = jax.default_backend() == "cpu" and net.kind == "resnet"
    return config.train.unroll or (max(1, chain.num_steps) if whole else 1)


def apply_gradient(optimizer, gradient, opt_state, params, *, factor=1.0):
    """One update of an optimiser, times a factor: the new parameters and the optimiser's new state."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    updates = jax.tree.map(lambda update: factor * update, updates)
    return optax.apply_updates(params, updates), opt_state


def _mean(tree):
    """The mean over all devices by a single all-reduce, however many arrays there are."""
    flat, unravel = ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))
