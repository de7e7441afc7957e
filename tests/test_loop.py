"""Complete training runs: resuming, metrics, checkpoints, and the content of the workdir."""

import importlib
import io
import json
import os
import re
import shutil
import sys

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import dualmcmc_jax
from dualmcmc_jax import config_check
from dualmcmc_jax.configs import toy2d
from dualmcmc_jax.data import batches, sources
from dualmcmc_jax.report import curves
from dualmcmc_jax.runtime import metric_writer
from dualmcmc_jax.training import checkpointing, loop, persistent_chains

METRICS = {
    "step",
    "energy_loss",
    "generator_loss",
    "encoder_loss",
    "energy_data",
    "energy_model",
    "revision_mse",
    "posterior_mse_start",
    "posterior_mse_end",
    "energy_gradient_norm",
    "generator_gradient_norm",
    "encoder_gradient_norm",
    "steps_per_second",
}


def train(config, workdir, drawn=None, measure=lambda state: {}):
    draw = lambda step, state: {} if drawn is None else drawn.append(step) or {}
    return loop.train(config, workdir, dataset=sources.load(config.data), draw=draw, measure=measure)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    drawn = []
    state = train(tiny.config(), workdir, drawn)
    assert drawn == [20, 40]
    return workdir, state


def test_workdir_has_config_metrics_and_checkpoints(uninterrupted):
    workdir, _ = uninterrupted
    assert json.loads((workdir / "config.json").read_text())["train"]["batch_size"] == 40
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(5, 41, 5))
    assert all(row.keys() == METRICS for row in rows)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"20", "40"}


def test_tensorboard_has_the_metrics_and_the_pictures(tensorboard, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util import tensor_util

    red = np.full((2, 3, 3), (255, 0, 0), np.uint8)
    config = tiny.config(train__num_steps=20)
    dataset = sources.load(config.data)
    loop.train(config, tmp_path, dataset=dataset, draw=lambda *_: {"samples": red}, measure=lambda _: {})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    written = {e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors("generator_loss")}
    assert written == pytest.approx({row["step"]: row["generator_loss"] for row in tiny.rows(tmp_path)}, rel=1e-6)
    plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in ("generator_loss", "samples")}
    assert plugins == {"generator_loss": "scalars", "samples": "images"}
    (event,) = events.Tensors("samples")
    width, height, png = event.tensor_proto.string_val
    assert (event.step, width, height) == (20, b"3", b"2")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), red)


@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    """Train for two epochs of two updates. After the first epoch, the learning rates are almost 0.

    Training examples are dark and held-out examples are bright.

    Returns:
      The data set, the batches, and the parameters after each update.
    """
    config = tiny.config(train__num_steps=4, evaluation__every=1, optimizer__decay=1e-30)
    train = np.random.RandomState(0).randint(0, 100, (80, 8, 8, 1)).astype(np.uint8)
    dataset = sources.Dataset(train, train[:40] + np.uint8(150))
    seen, params = [], []
    share = loop.share_of_batch

    def spy(*arguments):
        batch = share(*arguments)
        return lambda step: seen.append(batch(step)) or seen[-1]

    def measure(state):
        params.append(jax.device_get(state.params))
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "share_of_batch", spy)
        loop.train(config, tmp_path_factory.mktemp("epochs"), dataset=dataset, draw=lambda *_: {}, measure=measure)
    return dataset, seen, params


def test_learning_rates_fall_after_every_epoch(epochs):
    """The updates of the first epoch change the parameters. The updates of the second epoch do not."""
    _, _, (first, second, third, fourth) = epochs
    moves = lambda before, after: [
        float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    ]
    assert max(moves(first, second)) > 1e-5
    assert max(moves(second, third) + moves(third, fourth)) == 0


def test_batches_contain_only_training_examples(epochs):
    """Each epoch contains every training example once, and no held-out example."""
    dataset, seen, _ = epochs
    assert len(seen) == 4
    for batches_of_epoch in (seen[:2], seen[2:]):
        x = np.concatenate([batch.x.reshape(40, -1) for batch in batches_of_epoch])
        example = np.concatenate([batch.example.ravel() for batch in batches_of_epoch])
        assert sorted(example) == list(range(80))
        np.testing.assert_array_equal(x, dataset.train.reshape(80, -1)[example])


def test_light_evaluations_are_written_to_separate_rows(tmp_path):
    """A resumed run rewrites the rows after its checkpoint, and does not duplicate the rows before it."""
    config = tiny.config(evaluation__every=15)
    measure = lambda state: {"quality": float(state.step)}
    train(config, tmp_path, measure=measure)
    rows = [row for row in tiny.rows(tmp_path) if "quality" in row]
    assert rows == [{"step": step, "quality": float(step)} for step in (15, 30, 40)]
    shutil.rmtree(tmp_path / "checkpoints" / "40")
    train(config, tmp_path, measure=measure)
    assert [row for row in tiny.rows(tmp_path) if "quality" in row] == rows


def test_data_flip_mirrors_some_examples(tmp_path, monkeypatch):
    """With data.flip, some examples of the batches are mirrored. These are the same examples in every run."""
    seen = []

    def record(make, steps):
        all_batches = [make(step) for step in steps]
        seen.append([batch.x for batch in all_batches])
        return iter(all_batches)

    monkeypatch.setattr(batches, "prefetch", record)
    for flip, name in ((False, "plain"), (True, "flipped"), (True, "again")):
        train(tiny.config(train__num_steps=2, data__flip=flip), tmp_path / name)
    plain, flipped, again = (np.stack(x).reshape(80, 8, 8, 1) for x in seen)
    np.testing.assert_array_equal(flipped, again)
    mirrored = np.concatenate([batches.flips(0, step, batch_size=40) for step in (0, 1)])
    assert 20 < mirrored.sum() < 60
    np.testing.assert_array_equal(flipped[mirrored], plain[mirrored][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~mirrored], plain[~mirrored])


def test_resumed_run_equals_uninterrupted_run(uninterrupted, tmp_path):
    expected_workdir, expected = uninterrupted
    train(tiny.config(train__num_steps=20), tmp_path)
    state = train(tiny.config(), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert tiny.rows(tmp_path) == tiny.rows(expected_workdir)


def test_intermediate_checkpoint_equals_that_of_a_shorter_run(uninterrupted, tmp_path):
    """The saved checkpoint is intact although training overwrites the buffers of the state while it is saved."""
    workdir, _ = uninterrupted
    expected = train(tiny.config(train__num_steps=20), tmp_path / "short")
    copy = shutil.copytree(workdir, tmp_path / "long")
    shutil.rmtree(copy / "checkpoints" / "40")
    jax.tree.map(np.testing.assert_array_equal, checkpointing.restore(tiny.config(), copy), expected)


def test_rows_after_the_checkpoint_are_rewritten(uninterrupted, tmp_path):
    """A run that is interrupted at step 30 has rows up to step 30, but its last checkpoint is from step 20."""
    expected_workdir, _ = uninterrupted
    train(tiny.config(train__num_steps=20), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 25, "energy_loss": 7}\n{"step": 30, "ener')
    train(tiny.config(), tmp_path)
    assert tiny.rows(tmp_path) == tiny.rows(expected_workdir)


@pytest.mark.parametrize(("killed_at", "killed_in"), [(20, "draw"), (40, "measure")])
def test_resumed_run_makes_the_pictures_and_the_evaluation_of_its_checkpoint(
    killed_at, killed_in, uninterrupted, tmp_path
):
    """The process is killed after it has saved a checkpoint, in the middle of drawing or of evaluating."""
    config, drawn, kills = tiny.config(evaluation__every=20), [], [killed_in]

    def kill(name, step):
        if (step, [name]) == (killed_at, kills):
            kills.clear()
            raise KeyboardInterrupt

    def draw(step, state):
        kill("draw", step)
        drawn.append((step, int(state.step)))
        return {}

    def measure(state):
        kill("measure", int(state.step))
        return {"quality": int(state.step)}

    missing = lambda step: (step, step) not in drawn
    start = lambda: loop.train(
        config, tmp_path, dataset=sources.load(config.data), draw=draw, measure=measure, missing=missing
    )
    with pytest.raises(KeyboardInterrupt):
        start()
    start()
    start()  # nothing is missing now
    assert drawn == [(20, 20), (40, 40)]
    expected = tiny.rows(uninterrupted[0])
    expected.insert(4, {"step": 20, "quality": 20.0})
    assert tiny.rows(tmp_path) == [*expected, {"step": 40, "quality": 40.0}]


def test_checkpoint_that_no_run_has_trained_here_is_not_evaluated(uninterrupted, tmp_path):
    """An imported checkpoint has no metrics.jsonl beside it."""
    workdir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    (workdir / "metrics.jsonl").unlink()
    drawn = []
    config = tiny.config(evaluation__every=20)
    loop.train(
        config,
        workdir,
        dataset=sources.load(config.data),
        draw=lambda step, state: drawn.append(step) or {},
        measure=lambda state: drawn.append("evaluated") or {},
        missing=lambda step: True,
    )
    assert not drawn


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            "raise ImportError('numpy.core.umath failed to import\\nmore')",
            "ImportError: numpy.core.umath failed to import",
        ),
        ("import numpy; numpy.no_such_name", "AttributeError: module 'numpy' has no attribute 'no_such_name'"),
        ("import warnings; warnings.warn('old'); raise TypeError('broken')", "TypeError: broken"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_tensorboard_that_does_not_work_is_a_warning(code, problem, tensorboard, tmp_path, monkeypatch, caplog):
    """The warning of the last package must not become an error, as it would with `python -W error`."""
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text(code)
    for name in [name for name in sys.modules if re.match(r"tensorboard\b|dualmcmc_jax.*tensorboard_events", name)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with metric_writer.MetricsWriter(tmp_path, step=0, num_steps=1, every=1) as writer:
        writer.scalars(1, {"energy_loss": 3.0})
    assert caplog.messages == [f"TensorBoard events are not written: {problem}"]
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "energy_loss": 3.0}\n'


def test_tensorboard_needs_no_tensorflow_and_its_absence_is_one_line(tensorboard, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "dualmcmc_jax")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    new_writer = lambda folder: metric_writer.MetricsWriter(folder, step=0, num_steps=1, every=1)
    with new_writer(tmp_path) as writer:
        writer.scalars(1, {"energy_loss": 3.0})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"energy_loss" in events.read_bytes()
    caplog.clear()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    (tmp_path / "other").mkdir()
    with new_writer(tmp_path / "other") as writer:
        writer.scalars(1, {"energy_loss": 3.0})
    assert caplog.messages == ["TensorBoard events are not written: install tensorboard to enable them"]


def test_tensorboard_on_a_full_device_is_a_warning(tensorboard, tmp_path, caplog):
    """Metrics are still written to metrics.jsonl."""
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    new_writer = metric_writer.MetricsWriter(tmp_path, step=0, num_steps=2, every=1)
    with new_writer as writer, open("/dev/full", "wb", buffering=0) as full:
        writer._tensorboard._records = record_writer.RecordWriter(full)
        for step in (1, 2):
            writer.scalars(step, {"energy_loss": 3.0})
    assert caplog.messages == ["TensorBoard events are no longer written: No space left on device"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_lines_that_are_not_metrics_are_left_out_with_a_warning(tmp_path, caplog):
    good = '{"step": 1, "energy_loss": 2.0, "steps_per_second": 9.0}\n'
    junk = ["[1]", "notes", '{"energy_loss": 1}', '{"step": "x"}', '{"step": 1, "energy_loss": "high"}', "\0\0", ""]
    (tmp_path / "metrics.jsonl").write_text(good + "\n".join(junk) + "\n" + good.replace("1", "2") + '{"step": 3')
    history = curves.read(tmp_path)
    assert f"{tmp_path}/metrics.jsonl: left out 7 lines that are not rows of metrics" in caplog.text
    np.testing.assert_array_equal(history["energy_loss"], [[1, 2], [2, 2]])
    with metric_writer.MetricsWriter(tmp_path, step=1, num_steps=3, every=1) as writer:
        writer.scalars(2, {"energy_loss": 3.0})
    assert (tmp_path / "metrics.jsonl").read_text() == good + '{"step": 2, "energy_loss": 3.0}\n'


def test_pipe_in_place_of_the_metrics_is_refused_or_left_out(tmp_path, caplog):
    """Reading or writing a pipe would wait for another process."""
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: found something other than a file, expected the metrics"):
        train(tiny.config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert curves.read(tmp_path) == {}
    assert "metrics.jsonl: found something other than a file" in caplog.text


def test_checkpoints_or_metrics_without_a_config_are_refused(uninterrupted, tmp_path):
    """Training would silently go on under another config, which may have the same networks, or replace the metrics."""
    workdir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    (workdir / "config.json").unlink()
    config = tiny.config(x_chain__step_size=1.0)
    with pytest.raises(ValueError, match=r"config\.json: found no such file, expected the config of the run"):
        config_check.check_run(workdir, config)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(
        ValueError, match=r"found no such file, .* whose metrics of 40 updates \(metrics\.jsonl\) are there"
    ):
        config_check.check_run(workdir, config)
    (workdir / "metrics.jsonl").unlink()
    config_check.check_run(workdir, config)


def test_finished_run_is_not_changed(uninterrupted):
    workdir, expected = uninterrupted
    rows = tiny.rows(workdir)
    state = train(tiny.config(), workdir)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert tiny.rows(workdir) == rows


def test_restore_returns_the_last_state_or_names_the_problem(uninterrupted, tmp_path):
    workdir, expected = uninterrupted
    state = checkpointing.restore(tiny.config(), workdir)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    with pytest.raises(ValueError, match=r"^workdir: found no checkpoint in .*nowhere/checkpoints, expected one"):
        checkpointing.restore(tiny.config(), tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ValueError, match=r"^step: found 7, expected one of 20, 40$"):
        checkpointing.restore(tiny.config(), workdir, step=7)
    shutil.copy(workdir / "config.json", tmp_path)
    for path, message in (
        (tmp_path, "no checkpoint in"),
        ("s3://bucket/run", "s3://bucket/run, expected a local folder"),
    ):
        with pytest.raises(ValueError, match=f"^path: found {message}"):
            dualmcmc_jax.load(path)


def test_some_config_fields_may_change_when_a_run_resumes(uninterrupted, tmp_path):
    workdir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    config = tiny.config(train__num_steps=45, log__every=1, checkpoint__every=7, evaluation__group_size=8)
    assert int(train(config, workdir).step) == 45
    assert [row["step"] for row in tiny.rows(workdir)] == [*range(5, 41, 5), *range(41, 46)]


@pytest.mark.parametrize("text", ["{", "", "[1, 2]"])
def test_damaged_config_is_reported(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: found .*, expected the config of a run"):
        config_check.check_run(tmp_path, tiny.config())


@pytest.mark.parametrize(("field", "value"), [("energy__widths", (8,)), ("train__seed", 1), ("x_chain__step_size", 1)])
def test_workdir_of_another_config_is_refused(uninterrupted, field, value):
    workdir, _ = uninterrupted
    with pytest.raises(ValueError, match=field.replace("__", ".")):
        config_check.check_run(workdir, tiny.config(**{field: value}))
    config_check.check_run(workdir, tiny.config(train__num_steps=7))


def test_run_whose_data_have_changed_is_refused(uninterrupted, tmp_path, caplog):
    """A run without digests.json, which an older version wrote, is accepted and gets one.

    A folder of images may be divided otherwise than by the older version, so a line tells how it is divided.
    """
    workdir, config = shutil.copytree(uninterrupted[0], tmp_path / "run"), tiny.config()
    dataset = sources.load(config.data)
    changed = dataset._replace(test=dataset.test[::-1])
    before = (workdir / "digests.json").read_bytes()
    nothing = {"draw": lambda *_: {}, "measure": lambda _: {}}
    with pytest.raises(
        ValueError, match=r"^data.source: found .* \(test: 297 examples as before, but not the same ones\)"
    ):
        loop.train(config, workdir, dataset=changed, **nothing)
    assert (workdir / "digests.json").read_bytes() == before
    (workdir / "digests.json").unlink()
    loop.train(config, workdir, dataset=dataset._replace(notes="train/ and test/"), **nothing)
    assert (workdir / "digests.json").read_bytes() == before
    line = f"{workdir}/digests.json: found no such file, so the data may not be those of earlier starts"
    assert [message for message in caplog.messages if "earlier starts" in message] == [
        f"{line}; they are now divided as follows: train/ and test/"
    ]
    loop.train(config, workdir, dataset=dataset._replace(notes="train/ and test/"), **nothing)
    assert caplog.text.count("earlier starts") == 1


def test_training_begins_with_a_line_about_the_data(tmp_path, caplog):
    caplog.set_level("INFO", "dualmcmc_jax")
    train(tiny.config(train__num_steps=1), tmp_path)
    assert caplog.messages[0] == "1,500 images of 8 x 8 x 1 to train, 297 held out, from digits"
    compiling, compiled = (line for line in caplog.messages if line.startswith("compil"))
    assert compiling.startswith("compiling the update; ")
    assert re.fullmatch(r"compiled the update in \d+ s", compiled)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lsun_church64", pytest.param("celebahq256", marks=pytest.mark.more)])
def test_recipes_of_the_papers_other_data_sets_train(name, tmp_path, monkeypatch):
    """The images are random. The networks are as deep as in the config but narrow. All three are trained."""
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = importlib.import_module(f"dualmcmc_jax.configs.{name}").get_config()
    widest = max(config.energy.widths)
    for network in ("energy", "generator", "encoder"):
        config[network].widths = tuple(max(2, 4 * width // widest) for width in config[network].widths)
    config.x_chain.num_steps = config.z_chain.num_steps = 1
    config.loss.fresh_negatives = False
    config.train.update(num_steps=3, batch_size=8, unroll=1)
    config.log.every = 1
    config.evaluation.every = 0
    with tfds.testing.mock_data(num_examples=8):
        train(config, tmp_path / "run")
    rows = tiny.rows(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    for network in ("energy", "generator", "encoder"):
        assert all(row[f"{network}_gradient_norm"] > 0 for row in rows)


def test_command_of_tensorboard_exists():
    command = metric_writer._tensorboard_command().split()
    assert shutil.which(command[0])


@pytest.mark.parametrize("batch_size", [0, 36, 1504])
def test_invalid_batch_sizes_are_refused(batch_size, tmp_path):
    with pytest.raises(ValueError, match=f"train.batch_size: found {batch_size}, expected"):
        train(tiny.config(train__batch_size=batch_size), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    train(tiny.config(checkpoint__every=10, checkpoint__keep=2), tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"30", "40"}


@pytest.mark.parametrize(("num_examples", "warned"), [(100_000, False), (1_000, True)])
def test_learning_rates_that_shrink_to_nothing_are_noticed(num_examples, warned, caplog):
    """With the toy2d config, the 100,000 points of a density are 390 updates per epoch, a thousand examples only 3."""
    loop.warn_of_decay(toy2d.get_config(), num_examples // 256)
    assert ("optimizer.decay: found 0.85 after each of 2666 epochs" in caplog.text) == warned


def test_persistent_chains_whose_indices_would_overflow_are_refused():
    config = tiny.config(x_chain__init="persistent", x_chain__num_chains=2**31 // 40 + 1)
    with pytest.raises(ValueError, match=r"^x_chain.num_chains: found 53687092, expected at most 53687091 with this"):
        loop.check_chains(config, 1500)
    num, step, batch = 2**31 // 40, 2**31 - 2, 40
    chains = persistent_chains.Chains(jax.ShapeDtypeStruct((num, 2), np.float32), None)
    place = lambda step, index: persistent_chains.places(chains, step, index, index, batch_size=batch).x
    actual = jax.jit(place)(np.int32(step), np.arange(40, dtype=np.int32))
    np.testing.assert_array_equal(actual, (step * batch + np.arange(40)) % num)
