"""The whole evaluation: independence of devices and batch size, labels of metrics, and compilations."""

import jax
import numpy as np
import pytest
import tiny

from dualmcmc_jax.configs import digits, linear_gaussian, toy2d
from dualmcmc_jax.data import sources
from dualmcmc_jax.evaluation import restoration, suite
from dualmcmc_jax.model import Model
from dualmcmc_jax.report import sections, tables
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training import chains

pytestmark = pytest.mark.slow

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(autouse=True)
def short_restorations(monkeypatch):
    """Restore few images by short chains."""
    monkeypatch.setattr(restoration, "NUM_SAMPLES", 2)
    monkeypatch.setattr(chains, "RESTORATION_STEPS", 2)
    monkeypatch.setattr(chains, "RESTORATION_PROPOSALS", 1)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def test_metrics_do_not_depend_on_devices_or_batch_size(monkeypatch):
    """Compare 4 devices with 1 device, and batches of 100 with batches of 7, with more samples than one call draws."""
    results = []
    for num_devices, batch_size in ((4, 100), (1, 7)):
        monkeypatch.setattr(parallel, "available", lambda n=num_devices: jax.local_devices()[:n])
        config = tiny.coupled(evaluation__batch_size=batch_size)
        inputs = suite.inputs(config, sources.load(config.data), None, seed=1)
        metrics = suite.evaluate(tiny.model(config), inputs).metrics
        results.append({name: value for name, value in metrics.items() if "seconds" not in name})
    assert len(results[0]) > 60
    for name, value in results[0].items():
        expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-9, abs=1e-12)
        assert results[1][name] == expected, name


def test_diverged_model_can_be_evaluated(tmp_path):
    config = tiny.coupled(x_chain__num_steps=2)
    params = tiny.model(config).params
    params = params._replace(energy=jax.tree.map(lambda x: x * np.nan, params.energy))
    model = Model.create(config, params)
    results = suite.evaluate(model, suite.inputs(config, sources.load(config.data), None))
    assert np.isnan(results.metrics["auroc/constant"])
    assert '"auroc/constant": null' in tables.as_json(results.metrics)
    assert "nan" in suite.text(results.metrics)
    assert len(suite.draw(model, results, tmp_path)) == 9


def test_model_without_x_chain_can_be_evaluated(tmp_path):
    config = tiny.coupled(x_chain__num_steps=0)
    model = tiny.model(config)
    results = suite.evaluate(model, suite.inputs(config, sources.load(config.data), None))
    assert results.metrics["generator/frechet_pixels_pca"] == results.metrics["revised/frechet_pixels_pca"]
    assert not any(name.startswith("long_run") for name in results.metrics)
    assert "long_run" not in suite.draw(model, results, tmp_path)


EXAMPLES = {"digits": digits, "toy2d": toy2d, "linear_gaussian": linear_gaussian}


def example(name):
    """Return an example config with a small evaluation that includes the likelihood."""
    config = EXAMPLES[name].get_config()
    config.update_from_flattened_dict(
        {"x_chain.num_steps": 2, "z_chain.num_steps": 2, "train.batch_size": 20, "train.unroll": 1}
    )
    config.evaluation.update(num_samples=30, num_held_out=25, num_neighbours=20, light_samples=20, ais_temperatures=3)
    return config


MORE = [pytest.param(name, marks=pytest.mark.more) for name in ("toy2d", "linear_gaussian")]


@pytest.mark.parametrize("name", ["digits", *MORE])
def test_every_metric_has_one_section_and_new_parameters_compile_nothing(name):
    """No metric of the example configs appears in the section for undeclared metrics."""
    config = example(name)
    inputs = suite.inputs(config, sources.load(config.data), None)
    model = tiny.model(config)
    results, compiled = suite.evaluate(model, inputs), []
    keys = [key for key in results.metrics if key not in suite.FACTS]
    assert len(keys) > 40
    for key in keys:
        titles = [section.title for section in suite.SECTIONS if section.find(key)]
        assert len(titles) == 1, f"{key} is declared by {titles or 'no section'}"
    assert sections.OTHER_TITLE not in {block.title for block in suite.blocks(results.metrics)}

    others = jax.tree.map(lambda x: 1.01 * x, model.params)
    jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: compiled.append(event))
    again = suite.evaluate(Model.create(config, others, step=1), inputs)
    assert compiled.count(COMPILED) == 0
    assert again.metrics["revised/precision"] >= 0
    assert again.metrics["energy/train/mean"] != results.metrics["energy/train/mean"]
    jax.jit(lambda x: x + 1)(1.0)
    assert compiled.count(COMPILED) == 1  # the listener does count compilations


def test_every_light_metric_has_a_section():
    """Without the prefix "light/", the keys are those of the evaluation."""
    config = example("digits")
    metrics = suite.light(config, suite.inputs(config, sources.load(config.data), None))(tiny.model(config).params)
    assert metrics
    for key in metrics:
        assert any(section.find(key.removeprefix("light/")) for section in suite.SECTIONS), key


def test_metric_without_a_section_is_shown_under_its_key():
    """The metric appears in the section for undeclared metrics."""
    blocks = suite.blocks({"revised/precision": 0.5, "revised/beauty": 0.75})
    assert [block.title for block in blocks] == ["Samples", sections.OTHER_TITLE]
    assert blocks[-1].table == sections.Table(["value"], {"revised/beauty": ["0.75"]})
    assert "revised/beauty" in tables.text("summary", blocks)


def test_titles_are_unique_and_captions_end_with_a_period():
    """Also, the docstring of each question begins with a question."""
    titles = {section.title for section in suite.SECTIONS}
    assert len(titles) == len(suite.SECTIONS)
    for question in suite.QUESTIONS:
        assert question.__doc__.split("\n")[0].endswith("?")
        assert all(caption.endswith((".", "?")) for caption in question.CAPTIONS.values())


def test_figures_ignore_the_settings_of_the_user(programs, tmp_path):
    """A matplotlibrc with text.usetex would need LaTeX, and one with savefig.bbox would change the sizes of figures."""
    code = f"""
import matplotlib
from pathlib import Path
matplotlib.rcParams.update({{"text.usetex": True, "savefig.bbox": "tight", "figure.facecolor": "red"}})
from dualmcmc_jax.report import figures
figure, axis = figures.plt.subplots(figsize=(2, 1))
axis.set_title("50%")
pixels = figures.save(Path({str(tmp_path)!r}) / "a.png", figure)
print(pixels.shape, pixels[0, 0])
"""
    done = programs.run(module="", code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(100, 200, 3) [255 255 255]\n"
