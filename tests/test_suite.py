"""The whole evaluation: what its numbers do not depend on, how they are labelled, and what it compiles."""

import jax
import numpy as np
import pytest
import tiny

from dualmcmc_jax.configs import digits, linear_gaussian, toy2d
from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import suite
from dualmcmc_jax.model import Model
from dualmcmc_jax.report import sections, tables
from dualmcmc_jax.runtime import parallel

pytestmark = pytest.mark.slow

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def test_nothing_depends_on_devices_or_batch_size(monkeypatch):
    """1 and 4 devices, energies and features in batches of 100 and of 7, and more samples than one call makes."""
    found = []
    for num_devices, batch_size in ((4, 100), (1, 7)):
        monkeypatch.setattr(parallel, "available", lambda n=num_devices: jax.local_devices()[:n])
        config = tiny.coupled(evaluation__batch_size=batch_size)
        inputs = suite.inputs(config, sources.load(config.data), None, seed=1)
        metrics = suite.evaluate(tiny.model(config), inputs).metrics
        found.append({name: value for name, value in metrics.items() if "seconds" not in name})
    assert len(found[0]) > 60
    for name, value in found[0].items():
        assert found[1][name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-9, abs=1e-12)), name


def test_a_model_that_diverged_is_measured(tmp_path):
    config = tiny.coupled(x_chain__num_steps=2)
    params = tiny.model(config).params
    params = params._replace(energy=jax.tree.map(lambda x: x * np.nan, params.energy))
    model = Model.create(config, params)
    results = suite.evaluate(model, suite.inputs(config, sources.load(config.data), None))
    assert np.isnan(results.metrics["auroc/constant"])
    assert '"auroc/constant": null' in tables.as_json(results.metrics)
    assert "nan" in suite.text(results.metrics)
    assert len(suite.draw(model, results, tmp_path)) == 8


def test_without_an_x_chain(tmp_path):
    config = tiny.coupled(x_chain__num_steps=0)
    model = tiny.model(config)
    results = suite.evaluate(model, suite.inputs(config, sources.load(config.data), None))
    assert results.metrics["generator/frechet_pixels_pca"] == results.metrics["revised/frechet_pixels_pca"]
    assert not any(name.startswith("long_run") for name in results.metrics)
    assert "long_run" not in suite.draw(model, results, tmp_path)


EXAMPLES = {"digits": digits, "toy2d": toy2d, "linear_gaussian": linear_gaussian}


def example(name):
    """An example config with a small evaluation that asks every question."""
    config = EXAMPLES[name].get_config()
    config.update_from_flattened_dict(
        {"x_chain.num_steps": 2, "z_chain.num_steps": 2, "train.batch_size": 20, "train.unroll": 1}
    )
    config.evaluation.update(num_samples=30, num_held_out=25, num_neighbours=20, light_samples=20, ais_temperatures=3)
    return config


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_metric_is_labelled_once_and_new_parameters_compile_nothing(name):
    """No metric of the example configs lands among the other metrics, and none belongs to two sections."""
    config = example(name)
    inputs = suite.inputs(config, sources.load(config.data), None)
    model = tiny.model(config)
    results, compiled = suite.evaluate(model, inputs), []
    keys = [key for key in results.metrics if key not in suite.FACTS]
    assert len(keys) > 40
    for key in keys:
        homes = [section.title for section in suite.SECTIONS if section.find(key)]
        assert len(homes) == 1, f"{key} is declared by {homes or 'no section'}"
    assert sections.OTHER_TITLE not in {block.title for block in suite.blocks(results.metrics)}

    others = jax.tree.map(lambda x: 1.01 * x, model.params)
    jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: compiled.append(event))
    again = suite.evaluate(Model.create(config, others, step=1), inputs)
    assert compiled.count(COMPILED) == 0
    assert again.metrics["revised/precision"] >= 0
    assert again.metrics["energy/train/mean"] != results.metrics["energy/train/mean"]
    jax.jit(lambda x: x + 1)(1.0)
    assert compiled.count(COMPILED) == 1  # so compilations are counted


def test_light_metrics_are_labelled():
    """Without their prefix, they are metrics of the evaluation."""
    config = example("digits")
    metrics = suite.light(config, suite.inputs(config, sources.load(config.data), None))(tiny.model(config).params)
    assert metrics
    for key in metrics:
        assert any(section.find(key.removeprefix("light/")) for section in suite.SECTIONS), key


def test_a_metric_without_a_section_is_shown():
    """It is shown under its key, in a section of its own."""
    blocks = suite.blocks({"revised/precision": 0.5, "revised/beauty": 0.75})
    assert [block.title for block in blocks] == ["Samples", sections.OTHER_TITLE]
    assert blocks[-1].table == sections.Table(["value"], {"revised/beauty": ["0.75"]})
    assert "revised/beauty" in tables.text("summary", blocks)


def test_every_figure_has_a_caption_and_a_section():
    titles = {section.title for section in suite.SECTIONS}
    assert len(titles) == len(suite.SECTIONS)
    for question in suite.QUESTIONS:
        assert question.__doc__.split("\n")[0].endswith("?")
        assert all(caption.endswith((".", "?")) for caption in question.CAPTIONS.values())
