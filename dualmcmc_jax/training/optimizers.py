"""Adam for each of the three networks, as in the authors' recipe."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dualmcmc_jax.models.build import Params


def build(config, steps_per_epoch: int) -> Params:
    """One optax transformation per network, for each field of Params.

    In this order: gradient clipping by global norm (optional), L2 added to the gradient (coupled, as PyTorch's
    weight_decay), Adam, and a learning rate that falls by a constant factor after every epoch.
    """
    settings = config.optimizer

    def adam(learning_rate, l2):
        schedule = optax.exponential_decay(learning_rate, steps_per_epoch, settings.decay, staircase=True)
        return optax.chain(
            optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity(),
            optax.add_decayed_weights(l2),
            optax.scale_by_adam(settings.b1, settings.b2),
            optax.scale_by_learning_rate(schedule),
        )

    return Params(*(adam(**settings[name]) for name in Params._fields))


class Moments(NamedTuple):
    """What Adam remembers of one network: trees like its parameters, and after how many updates."""

    mean: Any
    squared: Any
    count: int


def resumed(opt_state: Any, step: int, moments: Moments | None) -> Any:
    """Set a fresh optimizer state of one network to `step` updates. Without moments, Adam starts anew."""
    if moments:
        adam = lambda state: state._replace(
            mu=jax.tree.map(_like, state.mu, moments.mean),
            nu=jax.tree.map(_like, state.nu, moments.squared),
            count=_like(state.count, moments.count),
        )
    else:
        adam = lambda state: state
    change = {
        optax.ScaleByAdamState: adam,
        optax.ScaleByScheduleState: lambda state: state._replace(count=_like(state.count, step)),
    }
    return tuple(change.get(type(part), lambda state: state)(part) for part in opt_state)


def _like(array: jax.Array, value: Any) -> jax.Array:
    return jnp.asarray(value, array.dtype)
