"""A process claims (locks) a workdir before it trains there."""

import json
import os
import re
import shutil

import pytest
import tiny

from dualmcmc_jax import config_check
from dualmcmc_jax.data import sources
from dualmcmc_jax.runtime import workdirs
from dualmcmc_jax.training import loop


def test_run_that_another_process_has_just_begun_is_kept(tmp_path):
    """The config is compared again after the workdir is locked, because another process may have trained there."""
    other, config = tiny.config(train__seed=1), tiny.config(train__seed=2)
    config_check.check_run(tmp_path, config)  # the folder is still empty
    with workdirs.claim(tmp_path, other.to_dict()):
        pass
    before = (tmp_path / "config.json").read_text()
    check = lambda: config_check.check_run(tmp_path, config)
    with pytest.raises(ValueError, match=r"train\.seed is 1 in the file and 2 now"):
        loop.train(
            config, tmp_path, dataset=sources.load(config.data), draw=lambda *_: {}, measure=lambda _: {}, check=check
        )
    assert (tmp_path / "config.json").read_text() == before
    assert json.loads(before)["train"]["seed"] == 1


def test_half_written_files_of_a_killed_process_are_removed(tmp_path):
    """The files of other modes stay, because their processes may be writing them at this moment."""
    names = [".config.json.new", "samples/.x_revision_00000040.png.new", "samples/.samples.npz.new", "a.new"]
    (tmp_path / "samples").mkdir()
    for name in names:
        (tmp_path / name).touch()
    with workdirs.claim(tmp_path, {}):
        assert [(tmp_path / name).exists() for name in names] == [False, False, True, True]


def test_text_with_a_file_name_that_is_not_utf8_is_written(tmp_path):
    workdirs.replace(tmp_path / "report.html", "of run\udcff")
    assert (tmp_path / "report.html").read_text() == "of run?"


def test_refused_claim_releases_the_lock(tmp_path):
    def refuse():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), workdirs.claim(tmp_path, {}, check=refuse):
        raise AssertionError("a refused claim must not be entered")
    with workdirs.claim(tmp_path, {"a": 1}):
        assert json.loads((tmp_path / "config.json").read_text()) == {"a": 1}


DATA = {"train": {"examples": 27, "sha256": "a"}, "test": {"examples": 3, "sha256": "b"}}
CHANGED = {"train": {"examples": 30, "sha256": "c"}, "test": {"examples": 3, "sha256": "d"}}


def claim(workdir, data):
    with workdirs.claim(workdir, {}, data=data):
        return json.loads((workdir / "digests.json").read_text())


def test_changed_data_are_refused_once_there_is_a_checkpoint(tmp_path):
    assert claim(tmp_path, CHANGED) == CHANGED
    assert claim(tmp_path, DATA) == DATA
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    assert claim(tmp_path, DATA) == DATA
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    with pytest.raises(
        ValueError, match=r"^data.source: found .*\(train: 27 examples then, 30 now; test: 3 .* same ones\)"
    ):
        claim(tmp_path, CHANGED)
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    (tmp_path / "digests.json").unlink()  # as the message says
    assert claim(tmp_path, CHANGED) == CHANGED


def moved(workdir, source, data, before="images:photos"):
    """Resume a run that was trained on the examples `DATA` from the source `before`."""
    with workdirs.claim(workdir, tiny.config(data__source=before).to_dict(), data=DATA):
        (workdir / "checkpoints" / "20").mkdir(parents=True)
    config = tiny.config(data__source=source)
    check = lambda: config_check.check_run(workdir, config, other_source=True)
    with workdirs.claim(workdir, config.to_dict(), data=data, check=check):
        return config_check.stored_config(workdir).data.source


def test_run_whose_data_have_moved_goes_on(tmp_path, caplog):
    assert moved(tmp_path, "npz:elsewhere.npz", DATA) == "npz:elsewhere.npz"
    assert caplog.messages == [
        "data.source: found 'npz:elsewhere.npz', expected 'images:photos' as before; the data are the same, so "
        "training goes on"
    ]


@pytest.mark.parametrize(
    ("data", "found"), [(CHANGED, r"data that have changed .*"), ({}, "'toy2d:rings', whose data have no digests")]
)
def test_other_data_from_another_source_are_refused(data, found, tmp_path):
    """The line does not name the deletion of digests.json, after which the config would be refused."""
    way_out = r"for 'toy2d:rings' instead of 'images:photos', choose another workdir: --workdir=DIR"
    with pytest.raises(ValueError, match=rf"^data\.source: found {found}, expected the same data; {way_out}$"):
        moved(tmp_path, "toy2d:rings", data)
    assert config_check.stored_config(tmp_path).data.source == "images:photos"
    (tmp_path / "digests.json").unlink()
    with pytest.raises(ValueError, match=r"data\.source is 'images:photos' in the file and 'toy2d:rings' now"):
        config_check.check_run(tmp_path, tiny.config(data__source="toy2d:rings"), other_source=True)


def test_paths_of_the_same_data_are_equal(tmp_path, monkeypatch, caplog):
    """Without digests.json too, as older versions wrote none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    workdir = tmp_path / "run"
    for source in ("images:photos/", f"images:{tmp_path}/photos", "images:./photos"):
        assert moved(workdir, source, DATA) == source
        (workdir / "digests.json").unlink()
        config_check.check_run(workdir, tiny.config(data__source="images:photos"))
        shutil.rmtree(workdir)
    assert not caplog.messages
    for other in ("npz:photos", "images:other", "tfds:photos"):
        assert not sources.same("images:photos", other)
    assert not sources.same("tfds:photos", "tfds:photos/")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"train": 3}', '{"train": {}, "test": {}}'])
def test_damaged_digests_are_named(content, tmp_path):
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    (tmp_path / "digests.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"digests\.json: found no digests of .*; to go on .*, delete .*digests\.json$"
    ):
        claim(tmp_path, DATA)
    assert (tmp_path / "digests.json").read_text() == content


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, None),
        (DATA, None),
        (CHANGED, r"^data.source: found data .* \(train: 30 examples then, 27 now; test: 3 .*\); the data are used as"),
        (
            {"train": 3},
            r"digests\.json: found no digests of training and held-out examples, expected those of the run$",
        ),
    ],
)
def test_use_of_changed_data_without_training_is_a_warning(content, line, tmp_path, caplog):
    if content:
        (tmp_path / "digests.json").write_text(json.dumps(content))
    workdirs.warn_of_changed_data(tmp_path, DATA)
    assert len(caplog.messages) == bool(line)
    assert not line or re.search(line, caplog.messages[0])


def test_workdir_without_a_checkpoint_can_be_taken_over(tmp_path):
    """A first start that ran out of memory, or was killed in its first save, leaves these folders."""
    first, second = tiny.config(train__seed=1), tiny.config(train__seed=2)
    with workdirs.claim(tmp_path, first.to_dict()):
        (tmp_path / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir(parents=True)
    with workdirs.claim(tmp_path, second.to_dict(), check=lambda: config_check.check_run(tmp_path, second)):
        assert config_check.stored_config(tmp_path).train.seed == 2


@pytest.mark.parametrize("folder", ["checkpoints/20", "checkpoints/damaged-20-1", "elsewhere"])
def test_other_run_is_kept_and_the_line_names_the_remedy(folder, tmp_path):
    """A folder with a config.json and without checkpoints/ may be an exported model."""
    with workdirs.claim(tmp_path, tiny.config(train__seed=1).to_dict()):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"train\.seed is 1 in the file and 2 now; expected .*--workdir=DIR$"):
        config_check.check_run(tmp_path, tiny.config(train__seed=2))


def without_checkpoints(workdir, *, step, left):
    """Make the workdir of a run whose checkpoints/ contains only `left`. The first checkpoint is due at step 20."""
    with workdirs.claim(workdir, tiny.config(train__seed=1).to_dict()):
        (workdir / "checkpoints" / left).mkdir(parents=True)
        (workdir / "metrics.jsonl").write_text("".join(f'{{"step": {s}, "loss": 1}}\n' for s in range(5, step + 1, 5)))


@pytest.mark.parametrize(("step", "left"), [(15, ""), (25, "20.orbax-checkpoint-tmp")])
def test_metrics_from_before_the_first_checkpoint_can_be_replaced(step, left, tmp_path):
    """Training diverged, or was killed, before a checkpoint was complete."""
    without_checkpoints(tmp_path, step=step, left=left)
    config_check.check_run(tmp_path, tiny.config(train__seed=2))


@pytest.mark.parametrize(
    ("step", "result"),
    [
        (20, ""),
        (0, "evaluation/20/metrics.json"),
        (0, "export/20/model.safetensors"),
        (0, "model.safetensors"),
        (0, "samples/samples.npz"),
        (0, "samples/seed-1/samples.npz"),
    ],
)
def test_results_without_checkpoints_are_kept(step, result, tmp_path):
    """A user deleted the checkpoints of a finished run. The same config may train anew."""
    without_checkpoints(tmp_path, step=step, left="")
    if result:
        (tmp_path / result).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / result).touch()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    config = tiny.config(train__seed=2)
    message = (
        r"train\.seed is 1 .* 2 now, whose (metrics|results) .* are there without its checkpoints; .*--workdir=DIR$"
    )
    with (
        pytest.raises(ValueError, match=message),
        workdirs.claim(tmp_path, config.to_dict(), check=lambda: config_check.check_run(tmp_path, config)),
    ):
        raise AssertionError("a refused claim must not be entered")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    config_check.check_run(tmp_path, tiny.config(train__seed=1))


def test_json_files_that_are_too_large_or_no_files_are_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": "%s"}' % ("x" * workdirs.MAX_JSON))
    with pytest.raises(ValueError, match=r"config\.json: found more than 1,000,000 bytes, expected the config"):
        workdirs.read_config(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"config\.json: found something other than a file, expected the config"):
        workdirs.read_config(tmp_path)
