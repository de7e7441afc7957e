"""One update of Dual-MCMC Teaching (Sec. 3.1): sample both revised joints, compute the losses, update the networks.

The update differs from the paper in two points. The x-chain starts at the mean g(z) instead of a draw of
p_theta(x | z) (see `core.sampling.synthesize`). The losses are scaled and weighted as in the authors' PyTorch code (see
`core.losses`).

The update differs from the authors' code in these points:

- All three losses use the same samples, drawn with the current parameters (Eq. 7, 10 and 15). The authors' code updates
  the generator and the inference model first. Then it draws new samples x~ for the loss of the energy by a second
  x-chain, which starts at samples of the updated generator. The config field `loss.fresh_negatives` selects this
  variant.
- With `loss.fresh_negatives`, the second x-chain starts at g(z) of newly drawn latents z. The authors' code uses the
  latents of the first x-chain again.
- Spectral norm makes one power iteration per update. The authors' code makes one in every forward pass of the energy,
  which is 63 per update. If the singular vectors have converged beforehand, the energy's parameters after three
  updates differ by 0.3% of the distance that they have moved.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from dualmcmc_jax.core.langevin import Trace, chain_keys, normal
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
    """Update all three networks once. This function runs on each device of the pmapped axis "batch".

    All random numbers are functions of the state's key, the step and the positions of the examples in the batch. They
    do not depend on the number of devices.

    Args:
      state: the train state, the same on every device.
      batch: this device's share of the batch, [B, ...].
      nets: the networks, from `models.build(config, axis_name="batch")`.
      optimizers: the optimizers, from `optimizers.build`.
      config: the full config, whose values are constants of the compiled update.

    Returns:
      The next state and the scalar metrics of this update, both the same on every device.
    """
    params, dtype = state.params, param_dtype(config)
    vectors = power_iterate(params.energy, state.vectors)
    x = to_float(batch.x, dtype)  # [B, ...]
    index = lax.axis_index(AXIS) * x.shape[0] + jnp.arange(x.shape[0])  # [B] positions in the batch of all devices
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    model_key, data_key, fresh_key, elbo_key, restart_key = jax.random.split(step_key, 5)
    noise_key = jax.random.fold_in(step_key, 5)  # a sixth key, which leaves the five as they are
    x = with_noise(chain_keys(noise_key, index), x, state.step, config) if config.data.noise_std else x

    # Sample both revised joints with the current parameters (Sec. 3.1).
    #   P~: z ~ p(z),  x~ = K_x Langevin steps on pi_alpha(x) from g(z) (Eq. 3).
    #   Q~: x ~ data,  z~ = K_z Langevin steps on p_theta(z | x) from z0 ~ q_phi(z | x) (Eq. 6).
    places = persistent_chains.places(
        state.chains, state.step, index, batch.example, batch_size=config.train.batch_size
    )
    starts = persistent_chains.starts(chain_keys(restart_key, index), state.chains, places)
    decode = nets.generator.bind(params.generator)
    energy, encode = nets.energy.bind(normalize(params.energy, vectors)), partial(nets.encoder.apply, params.encoder)
    settings = chains.synthesis(config, nets) | starts.x
    sample = partial(synthesize, energy=energy, encode=encode, axis_name=AXIS, **settings)
    model = sample(chain_keys(model_key, index), decode)
    data = infer(chain_keys(data_key, index), encode, decode, x, **chains.inference(config, nets) | starts.z)
    noise = normal(chain_keys(elbo_key, index), model.z.shape[1:], model.z.dtype)
    samples = objectives.Samples(x, model, data, noise)

    # Compute the gradients of the losses: energy (Eq. 7), generator (Eq. 10) and inference model (Eq. 15).
    differentiate = partial(objectives.gradients, params=params, bind=partial(_networks, nets, vectors), config=config)
    update = partial(apply_gradient, factor=jnp.asarray(config.health.learning_rate_factor, dtype) ** state.attempt)
    gradient, metrics = differentiate(("generator", "encoder"), samples=samples)
    if config.loss.fresh_negatives:  # draw x~ for Eq. 7 from the updated generator
        gradient = _mean(gradient)
        generator, _ = update(optimizers.generator, gradient["generator"], state.opt_state.generator, params.generator)
        samples = samples._replace(model=sample(chain_keys(fresh_key, index), nets.generator.bind(generator)))
    energy_gradient, energy_metrics = differentiate(("energy",), samples=samples)
    metrics = metrics | energy_metrics | acceptance(x=model.trace, z=data.trace)
    if config.loss.fresh_negatives:
        energy_gradient, metrics = _mean((energy_gradient, metrics))
    else:
        energy_gradient, gradient, metrics = _mean((energy_gradient, gradient, metrics))
    gradients = Params(**energy_gradient, **gradient)

    # Update the parameters, their average and the persistent chains.
    updated = [update(*args) for args in zip(optimizers, gradients, state.opt_state, params, strict=True)]
    new_params, opt_state = (Params(*parts) for parts in zip(*updated, strict=True))
    decay = average_decay(state.step, config.train.ema_decay, dtype)
    average = optax.incremental_update(usable(new_params, vectors), state.average, 1 - decay)
    norms = {f"{name}_gradient_norm": optax.tree.norm(g) for name, g in gradients._asdict().items()}
    chosen = samples.model.starts
    resampling = {} if chosen is None else {"resampling_power": chosen.power, "effective_share": chosen.effective_share}
    ends = persistent_chains.Chains(samples.model.revised, data.z)
    kept = persistent_chains.keep(state.chains, places, ends, axis_name=AXIS)
    state = TrainState(state.step + 1, state.key, new_params, average, opt_state, vectors, state.attempt, kept)
    return state, metrics | norms | resampling


def acceptance(**traces: Trace) -> dict[str, jax.Array]:
    """Return the mean acceptance probability of all chains and steps, by "NAME_acceptance".

    Args:
      **traces: traces of chains by name. Chains without steps, or whose kernel accepts every step, are left out.
    """
    rates = {name: trace.acceptance for name, trace in traces.items()}
    return {f"{name}_acceptance": rate.mean() for name, rate in rates.items() if rate is not None and rate.size}


def with_noise(keys: jax.Array, x: jax.Array, step: jax.Array, config) -> jax.Array:
    """Add normal noise to the data of one update.

    The standard deviation is noise_std max(0, 1 - t / noise_steps), or noise_std if noise_steps is 0.

    Args:
      keys: [B] keys, one per example.
      x: [B, ...] data.
      step: t, the number of updates made before this one.
      config: the full config (uses data.noise_std and data.noise_steps).

    Returns:
      [B, ...] data with noise.
    """
    std, num_steps = config.data.noise_std, config.data.noise_steps
    left = jnp.maximum(0, 1 - jnp.asarray(step, x.dtype) / num_steps) if num_steps else 1
    return x + std * left * normal(keys, x.shape[1:], x.dtype)


def average_decay(step: jax.Array, decay: float, dtype=jnp.float32) -> jax.Array:
    """Return the decay rate of the moving average of the parameters in one update: min(decay, (1 + t) / (10 + t)).

    Here t is the number of updates made before this one. The initial parameters thus soon lose their weight in the
    average, which after n updates is 9! n! / (n + 9)!. With a constant decay of 0.999 it would still be 37% after 1,000
    updates.

    Args:
      step: t, the number of updates made before this one.
      decay: train.ema_decay, which is the decay rate of late updates.
      dtype: dtype of the result.
    """
    t = jnp.asarray(step, dtype)
    return jnp.minimum(decay, (1 + t) / (10 + t))


def apply_gradient(optimizer, gradient, opt_state, params, *, factor=1.0):
    """Apply one optimizer update.

    Args:
      optimizer: an optax gradient transformation.
      gradient: the gradient, a tree like params.
      opt_state: the state of the optimizer.
      params: the parameters.
      factor: scalar by which the update is multiplied.

    Returns:
      The new parameters and the new state of the optimizer.
    """
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    updates = jax.tree.map(lambda update: factor * update, updates)
    return optax.apply_updates(params, updates), opt_state


def _networks(nets: Nets, vectors, params: Params) -> objectives.Networks:
    """Bind the networks to parameters for the losses.

    Gradients pass through spectral norm. `Net.apply` is used instead of `Net.bind`, so that the gradients of several
    calls are added in the precision of the parameters.
    """
    return objectives.Networks(
        energy=partial(nets.energy.apply, normalize(params.energy, vectors)),
        decode=partial(nets.generator.apply, params.generator),
        encode=partial(nets.encoder.apply, params.encoder),
    )


def _mean(tree):
    """Return the mean of each array over all devices. The arrays are concatenated, so that one all-reduce is enough."""
    flat, unravel = ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))
