"""Has training diverged? Checks of the metrics and of the train state, and the state for the next attempt."""

import math

import jax
import jax.numpy as jnp

from dualmcmc_jax.training.state import TrainState


class Diverged(ValueError):
    """Training has diverged.

    Attributes:
      step: the update after which divergence was noticed.
      reason: what was wrong, in words.
    """

    def __init__(self, step: int, reason: str):
        super().__init__(f"step {step}: {reason}; training has diverged")
        self.step, self.reason = step, reason


def check(step: int, scalars: dict[str, jax.Array], config) -> None:
    """Check the metrics of an update.

    The authors' code stops at a NaN, and if the mean energies differ by more than 10,000.

    Args:
      step: number of updates made, including this one.
      scalars: the metrics of the update, by name.
      config: the full config (uses health.max_energy_gap).

    Raises:
      Diverged: a metric is NaN or infinite, or the mean energies of data and samples differ by more than
        health.max_energy_gap. A max_energy_gap of 0 disables the second check.
    """
    metrics = {name: float(value) for name, value in jax.device_get(scalars).items()}
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise Diverged(step, f"{name} is {value}")
    gap = abs(metrics.get("energy_data", 0) - metrics.get("energy_model", 0))
    if config.health.max_energy_gap and gap > config.health.max_energy_gap:
        raise Diverged(step, f"the energies of data and samples are {gap:.4g} apart, more than health.max_energy_gap")


def check_params(step: int, state: TrainState) -> None:
    """Check all arrays of a train state, before it is saved.

    The metrics can still be finite when the state is not. For example, the square of a finite gradient can overflow to
    infinity in Adam's state. Adam then never moves the parameter of this gradient again.

    Args:
      step: the number of updates made.
      state: the train state.

    Raises:
      Diverged: a parameter, an optimizer state or a persistent chain is NaN or infinite.
    """
    if not _finite((state.params, state.average)):
        raise Diverged(step, "a parameter is not finite")
    if not _finite((state.opt_state, state.vectors)):
        raise Diverged(step, "the state of an optimizer is not finite")
    if jax.tree.leaves(state.chains) and not _finite(state.chains):
        raise Diverged(step, "the state of a persistent chain is not finite")


@jax.jit
def _finite(tree) -> jax.Array:
    """Return whether all numbers of a tree are finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def next_attempt(state: TrainState, attempt: int) -> TrainState:
    """Return the state with which training continues after a rollback.

    Args:
      state: the state that has been restored from the newest checkpoint.
      attempt: number of this rollback; the first is 1.

    Returns:
      The state with a new random key and with the given attempt. `train_step` multiplies the updates of the parameters
      by health.learning_rate_factor to the power of the attempt.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(state.key)), attempt)
    return state._replace(key=jax.random.key_data(key), attempt=jnp.asarray(attempt, jnp.int32))
