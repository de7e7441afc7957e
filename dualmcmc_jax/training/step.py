"""One iteration of dual-MCMC teaching (Sec. 3.1): sample both revised joints, compute the losses, update."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from dualmcmc_jax.core.langevin import chain_keys, normal
from dualmcmc_jax.core.sampling import infer, synthesize
from dualmcmc_jax.data.batches import Batch, to_float
from dualmcmc_jax.models.build import Nets, Params
from dualmcmc_jax.models.spectral_norm import normalize, power_iterate
from dualmcmc_jax.runtime.parallel import AXIS
from dualmcmc_jax.training import chains, objectives, persistent_chains
from dualmcmc_jax.training.state import TrainState, param_dtype, usable


def train_step(
    state: TrainState, batch: Batch, *, nets: Nets, optimizers: Params, config
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Make one update of all three networks, on one device of the pmapped axis "batch".

    Args:
      state: the train state, the same on every device.
      batch: this device's share of the examples, [B, ...].
      nets: from `models.build(config, axis_name="batch")`.
      optimizers: from `optimizers.build`.
      config: the whole config; resolved while tracing.

    Returns:
      The next state and the scalar metrics of this step, both the same on every device.
    """
    params, dtype = state.params, param_dtype(config)
    vectors = power_iterate(params.energy, state.vectors)
    x = to_float(batch.x, dtype)  # [B, ...]
    index = lax.axis_index(AXIS) * x.shape[0] + jnp.arange(x.shape[0])  # of the examples, over all devices
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    model_key, data_key, fresh_key, elbo_key, restart_key = jax.random.split(step_key, 5)

    # Sample both revised joints. P~: z ~ p(z), x~ = K_x steps on pi_alpha from g(z).
    #                             Q~: x ~ data, z~ = K_z steps on p_theta(z | x) from a draw of q_phi(z | x).
    places = persistent_chains.places(
        state.chains, state.step, index, batch.example, batch_size=config.train.batch_size
    )
    starts = persistent_chains.starts(chain_keys(restart_key, index), state.chains, places)
    decode = nets.generator.bind(params.generator)
    energy, encode = nets.energy.bind(normalize(params.energy, vectors)), partial(nets.encoder.apply, params.encoder)
    sample = partial(synthesize, energy=energy, **chains.synthesis(config, nets) | starts.x)
    model = sample(chain_keys(model_key, index), decode)
    data = infer(chain_keys(data_key, index), encode, decode, x, **chains.inference(config, nets) | starts.z)
    noise = normal(chain_keys(elbo_key, index), model.z.shape[1:], model.z.dtype)
    samples = objectives.Samples(x, model, data, noise)

    # Compute the losses and their gradients (Eq. 7, 10 and 15).
    learn = partial(objectives.gradients, params=params, bind=partial(_networks, nets, vectors), config=config)
    update = partial(apply_gradient, factor=jnp.asarray(config.health.learning_rate_factor, dtype) ** state.attempt)
    gradient, metrics = learn(("generator", "encoder"), samples=samples)
    if config.loss.fresh_negatives:  # the energy learns from the generator just updated
        gradient = _mean(gradient)
        generator, _ = update(optimizers.generator, gradient["generator"], state.opt_state.generator, params.generator)
        samples = samples._replace(model=sample(chain_keys(fresh_key, index), nets.generator.bind(generator)))
    energy_gradient, energy_metrics = learn(("energy",), samples=samples)
    metrics = metrics | energy_metrics
    if config.loss.fresh_negatives:
        energy_gradient, metrics = _mean((energy_gradient, metrics))
    else:
        energy_gradient, gradient, metrics = _mean((energy_gradient, gradient, metrics))
    gradients = Params(**energy_gradient, **gradient)

    # Update the parameters, their average and the persistent chains.
    updated = [update(*args) for args in zip(optimizers, gradients, state.opt_state, params, strict=True)]
    new_params, opt_state = (Params(*parts) for parts in zip(*updated, strict=True))
    average = optax.incremental_update(usable(new_params, vectors), state.average, 1 - config.train.ema_decay)
    norms = {f"{name}_gradient_norm": optax.tree.norm(g) for name, g in gradients._asdict().items()}
    ends = persistent_chains.Chains(samples.model.revised, data.z)
    kept = persistent_chains.keep(state.chains, places, ends, axis_name=AXIS)
    state = TrainState(state.step + 1, state.key, new_params, average, opt_state, vectors, state.attempt, kept)
    return state, metrics | norms


def apply_gradient(optimizer, gradient, opt_state, params, *, factor=1.0):
    """Make one update of an optimizer, times a factor; return the new parameters and the optimizer's new state."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    updates = jax.tree.map(lambda update: factor * update, updates)
    return optax.apply_updates(params, updates), opt_state


def _networks(nets: Nets, vectors, params: Params) -> objectives.Networks:
    """Return the networks as the losses call them, with gradients through spectral norm and in full precision."""
    return objectives.Networks(
        energy=partial(nets.energy.apply, normalize(params.energy, vectors)),
        decode=partial(nets.generator.apply, params.generator),
        encode=partial(nets.encoder.apply, params.encoder),
    )


def _mean(tree):
    """Return the mean over all devices by a single all-reduce, however many arrays the tree has."""
    flat, unravel = ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))
