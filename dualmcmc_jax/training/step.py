"""One iteration of dual-MCMC teaching (Sec. 3.1): both revisions, three losses, three updates."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from dualmcmc_jax.core import densities, losses
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.sampling import infer, synthesize
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.models.build import Nets
from dualmcmc_jax.models.spectral_norm import normalize, power_iterate
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.state import TrainState, param_dtype, usable

AXIS = "batch"


def train_step(
    state: TrainState, batch: jax.Array, *, nets: Nets, optimizers: Params, config
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of all three networks, on one device of the pmapped axis "batch".

    Args:
      state: the train state, the same on every device.
      batch: this device's share of the examples, [B, ...] uint8 or float.
      nets: from `models.build(config, axis_name="batch")`.
      optimizers: from `optimizers.build`.
      config: the whole config; resolved while tracing.

    Returns:
      The next state and the scalar metrics of this step, both the same on every device.
    """
    params, loss = state.params, config.loss
    caution = jnp.asarray(config.health.learning_rate_factor, param_dtype(config)) ** state.attempt
    vectors = power_iterate(params.energy, state.vectors)
    energy = lambda p: partial(nets.energy.apply, normalize(p, vectors))
    decode = lambda p: partial(nets.generator.apply, p)
    encode = lambda p: partial(nets.encoder.apply, p)

    x = to_float(batch, param_dtype(config))  # [B, ...]
    index = lax.axis_index(AXIS) * x.shape[0] + jnp.arange(x.shape[0])
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    model_key, data_key, fresh_key = jax.random.split(step_key, 3)

    # P~: z ~ p(z), x~ = K_x steps on pi_alpha from g(z).   Q~: x ~ data, z~ = K_z steps on p_theta(z | x).
    decode_bound = nets.generator.bind(params.generator)
    sample = partial(synthesize, energy=nets.energy.bind(normalize(params.energy, vectors)), **model_settings(config))
    model = sample(chain_keys(model_key, index), decode_bound)
    data = infer(chain_keys(data_key, index), encode(params.encoder), decode_bound, x, **data_settings(config))

    def teach(generator, encoder):
        pairs = (x, data.z), (model.revised, model.z)
        generator_loss, errors = losses.generator_loss(decode(generator), *pairs, **loss.generator)
        encoder_loss = losses.encoder_loss(encode(encoder), *pairs, **loss.encoder)
        return generator_loss + encoder_loss, (generator_loss, encoder_loss, errors)

    def contrast(p, revised):
        return losses.energy_loss(energy(p), x, revised, temperature=config.energy.temperature, **loss.energy)

    taught, aux = jax.grad(teach, argnums=(0, 1), has_aux=True)(params.generator, params.encoder)
    generator_loss, encoder_loss, (error_data, error_model) = aux
    update, revised = partial(apply_gradient, factor=caution), model.revised
    if loss.fresh_negatives:
        taught = _mean(taught)
        generator, _ = update(optimizers.generator, taught[0], state.opt_state.generator, params.generator)
        revised = sample(chain_keys(fresh_key, index), nets.generator.bind(generator)).revised
    (energy_loss, energies), energy_gradient = jax.value_and_grad(contrast, has_aux=True)(params.energy, revised)

    size = x[0].size
    z_start = densities.mean_squared_error(data.trace.log_density[0], x, data.start, variance=config.generator.variance)
    metrics = {
        "energy_loss": energy_loss,
        "generator_loss": generator_loss,
        "encoder_loss": encoder_loss,
        "energy_data": energies[0],
        "energy_model": energies[1],
        "revision_mse": error_model / size,
        "posterior_mse_start": z_start.mean(),
        "posterior_mse_end": error_data / size,
    }
    if loss.fresh_negatives:
        energy_gradient, metrics = _mean((energy_gradient, metrics))
    else:
        energy_gradient, taught, metrics = _mean((energy_gradient, taught, metrics))
    gradients = Params(energy_gradient, *taught)

    updated = [update(*args) for args in zip(optimizers, gradients, state.opt_state, params, strict=True)]
    new_params, opt_state = (Params(*parts) for parts in zip(*updated, strict=True))
    average = optax.incremental_update(usable(new_params, vectors), state.average, 1 - config.train.ema_decay)
    norms = {f"{name}_gradient_norm": optax.tree.norm(g) for name, g in gradients._asdict().items()}
    state = TrainState(state.step + 1, state.key, new_params, average, opt_state, vectors, state.attempt)
    return state, metrics | norms


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
    start = {"init": config.x_chain.init, "latent_dim": config.generator.latent_dim, "dtype": param_dtype(config)}
    return chain_settings(config) | start


def data_settings(config) -> dict:
    """The keyword arguments of `infer` that a config holds."""
    unroll = _unroll(config, config.z_chain, config.generator)
    return dict(config.z_chain, variance=config.generator.variance, unroll=unroll)


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
