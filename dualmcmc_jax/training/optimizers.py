"""How is a gradient turned into an update? Adam for each of the three networks, as in the authors' recipe."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dualmcmc_jax.models.build import Params
from dualmcmc_jax.training.chains import param_dtype


def build(config, steps_per_epoch: int) -> Params:
    """Build the optimizers of the three networks.

    Each optimizer makes these steps, in this order:

    1. Clip the gradient by its global norm, if optimizer.clip_norm is not 0.
    2. Add L2 times the parameters to the gradient (coupled L2, like weight_decay of PyTorch's Adam).
    3. Apply Adam.
    4. Add weight_decay times the parameters (decoupled, as in AdamW of Loshchilov & Hutter 2019), if it is not 0.
    5. Multiply by the learning rate. It grows linearly during the first optimizer.warmup_steps updates, and is
       multiplied by optimizer.decay after every epoch.

    Args:
      config: the full config (uses the section optimizer, and train.compute_dtype for the dtype of the learning rates).
      steps_per_epoch: number of updates per epoch.

    Returns:
      One optax gradient transformation per network.
    """
    settings, dtype = config.optimizer, param_dtype(config)

    def adam(learning_rate, l2, weight_decay):
        decayed = optax.exponential_decay(learning_rate, steps_per_epoch, settings.decay, staircase=True)

        def schedule(count):
            count = jnp.asarray(count, dtype)  # of an integer, the learning rate would be rounded to float32
            warmup = jnp.minimum(1, (count + 1) / settings.warmup_steps) if settings.warmup_steps else 1
            return decayed(count) * warmup

        steps = [
            optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity(),
            optax.add_decayed_weights(l2),
            optax.scale_by_adam(settings.b1, settings.b2),
            *([optax.add_decayed_weights(weight_decay)] if weight_decay else []),  # 0: the state of earlier versions
            optax.scale_by_learning_rate(schedule),
        ]
        return optax.chain(*steps)

    return Params(*(adam(**settings[name]) for name in Params._fields))


class Moments(NamedTuple):
    """Adam's state for one network.

    Attributes:
      mean: moving averages of the gradients; a tree like the parameters.
      squared: moving averages of the squared gradients; a tree like the parameters.
      count: number of updates made.
    """

    mean: Any
    squared: Any
    count: int


def resumed(opt_state: Any, step: int, moments: Moments | None) -> Any:
    """Return the optimizer state of one network after a number of updates.

    Args:
      opt_state: a fresh state of an optimizer that `build` returned.
      step: number of updates made. It determines the learning rate.
      moments: Adam's state. None: Adam starts from zero moments.
    """
    if moments:
        adam = lambda state: state._replace(
            mu=jax.tree.map(_like, state.mu, moments.mean),
            nu=jax.tree.map(_like, state.nu, moments.squared),
            count=_like(state.count, moments.count),
        )
    else:
        adam = lambda state: state
    schedule = lambda state: state._replace(count=_like(state.count, step))
    resume = {optax.ScaleByAdamState: adam, optax.ScaleByScheduleState: schedule}
    return tuple(resume[type(part)](part) if type(part) in resume else part for part in opt_state)


def _like(array: jax.Array, value: Any) -> jax.Array:
    """Return a value as an array with the dtype of another array."""
    return jnp.asarray(value, array.dtype)
