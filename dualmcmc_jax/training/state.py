"""The train state: all that a run needs to go on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dualmcmc_jax import models
from dualmcmc_jax.models import spectral_norm
from dualmcmc_jax.models.build import Nets, Params
from dualmcmc_jax.training import optimizers, persistent_chains
from dualmcmc_jax.training.chains import param_dtype


class TrainState(NamedTuple):
    """Attributes:
    step: updates made so far.
    key: uint32 data of the key from which all randomness derives.
    params: what is learned.
    average: exponential moving average of the parameters as they are used, that is with spectral norm applied.
    opt_state: the optimizers' states.
    vectors: spectral norm's singular vectors of the energy's weights; empty without spectral norm.
    attempt: how often training has been rolled back.
    chains: persistent chains.
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
    """Return a state as checkpoints hold it: a tuple without `chains` if no chain persists.

    Checkpoints from before chains could persist have no such field, and they stay readable.
    """
    return state if jax.tree.leaves(state.chains) else _Stored(*(getattr(state, name) for name in _Stored._fields))


def from_stored(stored: NamedTuple, template: TrainState) -> TrainState:
    """Return the state of what checkpoints hold; a field that they lack is that of the template."""
    return template._replace(**stored._asdict())


def create(config, nets: Nets, optimizers: Params) -> TrainState:
    """The state before the first update, a function of the config alone."""
    init_key, run_key = jax.random.split(jax.random.key(config.train.seed))
    *net_keys, vectors_key, chains_key = jax.random.split(init_key, 5)
    params = Params(*(net.init(key) for net, key in zip(nets, net_keys, strict=True)))
    params = jax.tree.map(lambda p: p.astype(param_dtype(config)), params)
    vectors = spectral_norm.init_vectors(vectors_key, params.energy) if config.energy.spectral_norm else {}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(run_key),
        params=params,
        average=jax.tree.map(jnp.copy, usable(params, vectors)),  # no buffer is shared: the state is donated
        opt_state=Params(*(optimizer.init(p) for optimizer, p in zip(optimizers, params, strict=True))),
        vectors=vectors,
        attempt=jnp.zeros((), jnp.int32),
        chains=persistent_chains.create(chains_key, config, param_dtype(config)),
    )


def resumed(
    config, params: Params, vectors: spectral_norm.Vectors, *, step: int, moments: Params | None = None
) -> TrainState:
    """Make the train state of a run whose first `step` updates another program made.

    Args:
      config: the whole config; its train.seed is where randomness derives from.
      params: arrays of the parameters' shapes.
      vectors: spectral norm's.
      step: updates made so far.
      moments: `optimizers.Moments` of each network; None: Adam starts anew.
    """
    transformations = optimizers.build(config, steps_per_epoch=1)
    fresh = create(config, models.build(config), transformations)
    like = lambda new, old: jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), new, old)
    params, vectors = like(params, fresh.params), like(vectors, fresh.vectors)
    return fresh._replace(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        average=usable(params, vectors),
        vectors=vectors,
        opt_state=Params(
            *map(optimizers.resumed, fresh.opt_state, [step] * len(params), moments or [None] * len(params))
        ),
    )


def abstract(config) -> TrainState:
    """Shapes and dtypes of the state, to restore into; raises ValueError for float64 without jax_enable_x64."""
    if config.train.compute_dtype == "float64" and not jax.config.jax_enable_x64:
        expected = 'jax.config.update("jax_enable_x64", True) before'
        raise ValueError(f"train.compute_dtype: found float64, expected {expected}")
    return jax.eval_shape(lambda: create(config, models.build(config), optimizers.build(config, steps_per_epoch=1)))


def usable(params: Params, vectors: spectral_norm.Vectors) -> Params:
    """Apply spectral norm: return parameters ready for `Net.bind`."""
    return params._replace(energy=spectral_norm.normalize(params.energy, vectors))
