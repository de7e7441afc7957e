"""Divergence: how it is noticed, and how a run goes back to before it."""

import math

import jax
import jax.numpy as jnp

from dualmcmc_jax.training.state import TrainState


class Diverged(ValueError):
    """Training diverged at `step`, for the reason in its text."""

    def __init__(self, step: int, reason: str):
        super().__init__(f"step {step}: {reason}; training has diverged")
        self.step, self.reason = step, reason


def check(step: int, scalars: dict[str, jax.Array], config) -> None:
    """Raise Diverged if a metric of this step is not finite, or the energies are too far apart."""
    row = {name: float(value) for name, value in jax.device_get(scalars).items()}
    for name, value in row.items():
        if not math.isfinite(value):
            raise Diverged(step, f"{name} is {value}")
    gap, most = abs(row.get("energy_data", 0) - row.get("energy_model", 0)), config.health.max_energy_gap
    if most and gap > most:
        raise Diverged(step, f"the energies of data and samples are {gap:.4g} apart, more than health.max_energy_gap")


def check_params(step: int, state: TrainState) -> None:
    """Raise Diverged if a parameter or an optimizer state is not finite. No metric shows this yet.

    A gradient can be finite and its square not; the parameters then never move again.
    """
    if not _finite((state.params, state.average)):
        raise Diverged(step, "a parameter is not finite")
    if not _finite((state.opt_state, state.vectors)):
        raise Diverged(step, "the state of an optimizer is not finite")
    if jax.tree.leaves(state.chains) and not _finite(state.chains):
        raise Diverged(step, "the state of a persistent chain is not finite")


@jax.jit
def _finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def next_attempt(state: TrainState, attempt: int) -> TrainState:
    """Return the state for a retry: new randomness, and smaller updates in `train_step`."""
    key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(state.key)), attempt)
    return state._replace(key=jax.random.key_data(key), attempt=jnp.asarray(attempt, jnp.int32))
