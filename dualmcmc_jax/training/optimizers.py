"""Adam for each of the three networks, as in the authors' recipe."""

import optax

from dualmcmc_jax.training.params import Params


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
