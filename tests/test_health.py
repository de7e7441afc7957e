"""Divergence: it is detected before the state is saved, and the run stops or is rolled back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax.data import sources
from dualmcmc_jax.training import checkpointing, health, loop


def train(config, workdir):
    nothing = {"draw": lambda step, state: {}, "measure": lambda state: {}}
    return loop.train(config, workdir, dataset=sources.load(config.data), **nothing)


def diverging_config(**fields):
    """Return a config whose learning rate makes the energy diverge within a few steps."""
    config = tiny.config(energy__spectral_norm=False, log__every=2, checkpoint__every=2, **fields)
    config.optimizer.energy.learning_rate = 1e3
    return config


@pytest.mark.parametrize("name", ["energy_loss", "posterior_mse_end", "encoder_gradient_norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_metric_that_is_not_finite_is_named(name, value):
    scalars = dict.fromkeys(("energy_loss", "energy_data", "energy_model", "posterior_mse_end"), jnp.zeros(()))
    health.check(3, scalars, tiny.config())
    with pytest.raises(health.Diverged, match=f"step 3: {name} is {value}; training has diverged"):
        health.check(3, scalars | {name: jnp.asarray(value)}, tiny.config())


def test_large_energy_gap_is_a_divergence():
    scalars = {"energy_data": jnp.asarray(2e4), "energy_model": jnp.asarray(5e3)}
    with pytest.raises(health.Diverged, match=r"the energies of data and samples are 1.5e\+04 apart"):
        health.check(1, scalars, tiny.config())
    health.check(1, scalars, tiny.config(health__max_energy_gap=0.0))


def test_parameters_that_are_not_finite_are_a_divergence(tmp_path):
    state = train(tiny.config(train__num_steps=2), tmp_path)
    health.check_params(2, state)
    bad_optimizer = state._replace(opt_state=jax.tree.map(lambda x: x * np.inf, state.opt_state))
    with pytest.raises(health.Diverged, match="step 2: the state of an optimizer is not finite"):
        health.check_params(2, bad_optimizer)
    bad_params = state._replace(params=jax.tree.map(lambda x: x.at[..., 0].set(jnp.inf), state.params))
    with pytest.raises(health.Diverged, match="step 2: a parameter is not finite"):
        health.check_params(2, bad_params)


def test_diverged_run_keeps_only_finite_checkpoints(tmp_path):
    with pytest.raises(ValueError, match=r"step \d+: .*; training has diverged; the last good state is from step \d+"):
        train(diverging_config(), tmp_path)
    for folder in (tmp_path / "checkpoints").iterdir():
        state = checkpointing.restore(diverging_config(), tmp_path, step=int(folder.name))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.average)))


def test_rollback_lowers_the_learning_rates(tmp_path):
    config = diverging_config(health__policy="rollback", health__learning_rate_factor=1e-7)
    state = train(config, tmp_path)
    assert int(state.attempt) == 1
    assert int(state.step) == 40
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (event,) = (row for row in rows if "rollbacks" in row)
    assert event["rollbacks"] == 1
    assert event["step"] < event["diverged_at"] < 40
    steps = [row["step"] for row in rows if "energy_loss" in row]
    assert steps == list(range(2, 41, 2))
    assert all(np.isfinite(list(row.values())).all() for row in rows)


def test_training_stops_after_the_maximum_number_of_rollbacks(tmp_path, caplog):
    config = diverging_config(health__policy="rollback", health__learning_rate_factor=1.0, health__max_rollbacks=2)
    with pytest.raises(ValueError, match="training has diverged; the last good state"):
        train(config, tmp_path)
    log = caplog.text
    assert "rollback 1" in log
    assert "rollback 2" in log
    assert "rollback 3" not in log


def test_divergence_in_the_first_update_is_not_retried_forever(tmp_path, caplog):
    """The second failure shows that neither other random numbers nor lower learning rates help."""
    config = tiny.config(x_chain__step_size=1e38, health__policy="rollback", log__every=20)
    with pytest.raises(ValueError, match=r"^step 1: .*; training has diverged, twice in .*; .* is from step 0$"):
        train(config, tmp_path)
    assert "rollback 1" in caplog.text
    assert "rollback 2" not in caplog.text


def test_next_attempt_has_another_key(tmp_path):
    state = train(tiny.config(train__num_steps=2), tmp_path)
    again = health.next_attempt(state, 1)
    assert int(again.attempt) == 1
    assert not np.array_equal(again.key, state.key)
