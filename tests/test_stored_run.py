"""A float64 run that an earlier version stored. This version must resume and evaluate the run with the same numbers."""

import json
import shutil
from pathlib import Path

import pytest

from dualmcmc_jax import config_check
from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import suite
from dualmcmc_jax.model import Model
from dualmcmc_jax.training import checkpointing, loop

STORED = Path(__file__).parent / "reference" / "stored_run"
EXPECTED = json.loads((STORED / "expected.json").read_text())


@pytest.fixture
def workdir(tmp_path):
    return Path(shutil.copytree(STORED / "workdir", tmp_path / "run"))


def test_stored_run_resumes_with_the_same_numbers(workdir):
    """Make updates 5 to 8 from the checkpoint after update 4."""
    config = config_check.stored_config(workdir)
    config.train.num_steps = 8
    dataset = sources.load(config.data)
    loop.train(config, workdir, dataset=dataset, draw=lambda step, state: {}, measure=lambda state: {})
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    for row, expected in zip(rows[4:], EXPECTED["rows"], strict=True):
        row.pop("steps_per_second")
        assert row == pytest.approx(expected, rel=1e-9)


def test_stored_run_is_evaluated_with_the_same_numbers(workdir):
    config = config_check.stored_config(workdir)
    state = checkpointing.restore(config, workdir, step=4)
    inputs = suite.inputs(config, sources.load(config.data), None, seed=0)
    metrics = suite.evaluate(Model.create(config, state.average, step=int(state.step)), inputs).metrics
    metrics = {key: value for key, value in metrics.items() if "second" not in key}
    assert metrics.keys() == EXPECTED["metrics"].keys()
    metrics["x_chain"] = list(metrics["x_chain"])
    for key, expected in EXPECTED["metrics"].items():
        assert metrics[key] == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-9)), key
