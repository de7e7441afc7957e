"""What must be saved to continue a run? The train state, how it is created, and the form in which it is stored."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dualmcmc_jax import models
from dualmcmc_jax.models import spectral_norm
from dualmcmc_jax.models.build import Nets, Params
from dualmcmc_jax.training import optimizers, persistent_chains
from dualmcmc_jax.training.chains import param_dtype


class TrainState(NamedTuple):
    """The state of a training run. Together with the config and the data, it determines the rest of the run.

    Attributes:
      step: number of updates made so far.
      key: uint32 data of the PRNG key from which all random numbers of the updates are derived.
      params: the trained parameters, before spectral norm.
      average: exponential moving average of the parameters after spectral norm.
      opt_state: the optimizer state of each network.
      vectors: the singular vectors that spectral norm has estimated for the energy's weights; empty without spectral
        norm.
      attempt: number of times that training has been rolled back.
      chains: the states of the persistent chains.
    """

    step: jax.Array
    key: jax.Array
    params: Params
    average: Params
    opt_state: Params
    vectors: spectral_norm.Vectors
    attempt: jax.Array
    chains: persistent_chains.Chains


_Stored = NamedTuple("_Stored", [(name, Any) for name in TrainState._fields if name != "chains"])


def stored(state: TrainState) -> NamedTuple:
    """Return the tuple that is stored in checkpoints: the state, without the field `chains` if no chain is persistent.

    Earlier versions had no field `chains`. Their checkpoints have the shorter layout, so they can still be read.
    """
    return state if jax.tree.leaves(state.chains) else _Stored(*(getattr(state, name) for name in _Stored._fields))


def from_stored(stored: NamedTuple, template: TrainState) -> TrainState:
    """Return the train state for a tuple that was stored in a checkpoint.

    Args:
      stored: a tuple as returned by `stored`.
      template: the state that supplies the fields which the tuple lacks.
    """
    return template._replace(**stored._asdict())


def create(config, nets: Nets, optimizers: Params) -> TrainState:
    """Create the state before the first update. It depends only on the config.

    Args:
      config: the full config.
      nets: the networks of the config.
      optimizers: the optimizers of the config, from `optimizers.build`.
    """
    *net_keys, vectors_key, _ = _init_keys(config)
    params = Params(*(net.init(key) for net, key in zip(nets, net_keys, strict=True)))
    params = jax.tree.map(lambda p: p.astype(param_dtype(config)), params)
    vectors = spectral_norm.init_vectors(vectors_key, params.energy) if config.energy.spectral_norm else {}
    return _at_step_zero(config, optimizers, params, vectors)


def _init_keys(config) -> jax.Array:
    """Return the keys of the initial values: one per network, then of spectral norm, then of the persistent chains."""
    init_key, _ = jax.random.split(jax.random.key(config.train.seed))
    return jax.random.split(init_key, 5)


def _at_step_zero(config, optimizers: Params, params: Params, vectors: spectral_norm.Vectors) -> TrainState:
    """Return the state before the first update of a run that starts from given parameters."""
    _, run_key = jax.random.split(jax.random.key(config.train.seed))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(run_key),
        params=params,
        average=jax.tree.map(jnp.copy, usable(params, vectors)),  # two fields of a donated state must not share buffers
        opt_state=Params(*(optimizer.init(p) for optimizer, p in zip(optimizers, params, strict=True))),
        vectors=vectors,
        attempt=jnp.zeros((), jnp.int32),
        chains=persistent_chains.create(_init_keys(config)[-1], config, param_dtype(config)),
    )


def resumed(
    config, params: Params, vectors: spectral_norm.Vectors, *, step: int, moments: Params | None = None
) -> TrainState:
    """Create the train state of a run that continues from given parameters.

    Args:
      config: the full config. Its train.seed determines the random numbers of the run.
      params: the parameters of each network.
      vectors: the singular vectors of spectral norm.
      step: number of updates made so far.
      moments: the `optimizers.Moments` of each network. If the value of a network is None, its Adam starts from zero
        moments. If moments is None, this applies to all networks.

    Returns:
      The state, with the dtypes of the config. Its average equals the given parameters after spectral norm.
    """
    template = abstract(config)
    like = lambda array, leaf: jnp.asarray(array, leaf.dtype)
    params = jax.tree.map(like, params, template.params)
    vectors = jax.tree.map(like, vectors, template.vectors)
    fresh = _at_step_zero(config, optimizers.build(config, steps_per_epoch=1), params, vectors)
    return fresh._replace(
        step=jnp.asarray(step, jnp.int32),
        opt_state=Params(
            *map(optimizers.resumed, fresh.opt_state, [step] * len(params), moments or [None] * len(params))
        ),
    )


def abstract(config) -> TrainState:
    """Return the shapes and dtypes of the train state of a config, as a template for restoring.

    Args:
      config: the full config.

    Raises:
      ValueError: train.compute_dtype is "float64" and jax_enable_x64 is off, or no arrays can have these shapes.
    """
    if config.train.compute_dtype == "float64" and not jax.config.jax_enable_x64:
        expected = 'jax.config.update("jax_enable_x64", True) to be called first'
        raise ValueError(f"train.compute_dtype: found float64, expected {expected}")
    nets = models.build(config)
    try:
        return jax.eval_shape(lambda: create(config, nets, optimizers.build(config, steps_per_epoch=1)))
    except OverflowError as error:
        raise ValueError(f"config: found sizes that no array can have ({error})") from error


def usable(params: Params, vectors: spectral_norm.Vectors) -> Params:
    """Return the parameters with spectral norm applied to the energy, ready for `Net.bind`.

    Args:
      params: the trained parameters.
      vectors: the singular vectors of spectral norm; empty to leave the energy as it is.
    """
    return params._replace(energy=spectral_norm.normalize(params.energy, vectors))
