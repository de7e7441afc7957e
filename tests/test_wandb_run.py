"""Weights & Biases gets what metrics.jsonl gets. Its errors do not stop the training. The package is a stand-in."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest

from dualmcmc_jax.runtime import metric_writer, wandb_run


@pytest.fixture
def wandb(monkeypatch):
    """A package wandb that records its calls. A call raises an error if its name is in `failing`."""
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None, origin="wandb/__init__.py")
    module.calls, module.failing = [], set()

    def record(name):
        def call(*args, **settings):
            if name in module.failing:
                raise RuntimeError("no connection\nto the server")
            module.calls.append((name, *args, settings))
            return run

        return call

    run = ModuleType("run")
    run.log, run.finish, module.init = record("log"), record("finish"), record("init")
    module.Image = lambda pixels: f"image {pixels.shape}"
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return module


def write(workdir, **settings):
    workdir.mkdir(exist_ok=True)
    with metric_writer.MetricsWriter(workdir, step=0, num_steps=1, every=1, **settings) as writer:
        writer.scalars(1, {"loss": 2.0})
        writer.images(1, {"samples": np.zeros((4, 5, 3), np.uint8)})
    return (workdir / "metrics.jsonl").read_text()


def test_metrics_and_pictures_are_written_if_asked_for(wandb, tmp_path):
    rows = write(tmp_path / "plain")
    assert not wandb.calls
    assert write(tmp_path / "run", wandb={"train": {"seed": 0}}) == rows
    (init, started), *rest = wandb.calls
    id = (tmp_path / "run" / "wandb_id").read_text()
    expected = {"project": "dualmcmc_jax", "name": "run", "id": id, "resume": "allow", "config": {"train": {"seed": 0}}}
    assert (init, started) == ("init", expected | {"dir": str(tmp_path / "run")})
    assert rest == [
        ("log", {"loss": 2.0}, {"step": 1}),
        ("log", {"samples": "image (4, 5, 3)"}, {"step": 1}),
        ("finish", {}),
    ]
    write(tmp_path / "run", wandb={})
    assert wandb.calls[4][1]["id"] == id  # the resumed run goes on


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_errors_are_warnings(failing, wandb, tmp_path, caplog):
    rows = write(tmp_path / "plain")
    wandb.failing.add(failing)
    assert write(tmp_path / "run", wandb={}) == rows
    warnings = [record.getMessage() for record in caplog.records if "Weights & Biases" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].endswith("written to: RuntimeError: no connection")


def test_missing_package_is_reported_if_asked_for(wandb, tmp_path, monkeypatch):
    wandb_run.check(True)
    monkeypatch.delitem(sys.modules, "wandb")
    wandb_run.check(False)
    (tmp_path / "wandb").mkdir()  # the folder in which Weights & Biases keeps its files
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^log\.wandb: found True and no package wandb, expected it: pip install"):
        wandb_run.check(True)
