"""Damaged checkpoints are reported and renamed, and the newest intact checkpoint is restored."""

import functools
import itertools
import json
import shutil
import time

import jax
import numpy as np
import pytest
import tiny

from dualmcmc_jax import config_check, models
from dualmcmc_jax.runtime import checkpoints, memory, workdirs
from dualmcmc_jax.training import checkpointing, optimizers
from dualmcmc_jax.training import state as train_state

CONFIG = tiny.config()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir with checkpoints of steps 1, 2 and 3, which have different arrays."""
    workdir = tmp_path_factory.mktemp("checkpoints")
    with workdirs.claim(workdir, CONFIG.to_dict()), checkpoints.Checkpoints(workdir, 3) as store:
        for step in (1, 2, 3):
            checkpointing.save(store, state_at(step))
    return workdir


@functools.cache
def state_at(step):
    state = train_state.create(CONFIG, models.build(CONFIG), optimizers.build(CONFIG, steps_per_epoch=1))
    return jax.tree.map(lambda x: np.asarray(x + step, x.dtype), state)._replace(step=np.asarray(step, np.int32))


def test_linked_checkpoint_is_kept_when_it_is_no_longer_among_the_newest(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    tree = lambda step: {"step": np.asarray(step, np.int32)}
    with checkpoints.Checkpoints(run, 2) as store:
        store.save(1, tree(1))
    (run / "checkpoints" / "1").rename(elsewhere)
    (run / "checkpoints" / "1").symlink_to(elsewhere)
    with checkpoints.Checkpoints(run, 2) as store:
        for step in (2, 3, 4, 5):
            store.save(step, tree(step))
        store.wait()
        assert store.steps() == [1, 4, 5]
        assert store.restore(tree(0), 1)["step"] == 1
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1", "4", "5"]


def restore(workdir, **kind):
    with checkpoints.Checkpoints(workdir, None if kind else 3, **kind) as store:
        return checkpointing.read(store, CONFIG)


def assert_state_of_step(state, step):
    jax.tree.map(np.testing.assert_array_equal, state, state_at(step))


def largest_file(folder, pattern="*"):
    return max((path for path in folder.rglob(pattern) if path.is_file()), key=lambda path: path.stat().st_size)


def flip_a_bit(folder, random):
    """Flip a bit of an array, such that Orbax restores another array without an error."""
    path = largest_file(folder, "d/*")  # Orbax keeps arrays in folders of this name
    data = path.read_bytes()
    for _ in range(100):
        flipped = bytearray(data)
        flipped[random.randint(len(data))] ^= 1 << random.randint(8)
        path.write_bytes(flipped)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "check_record", lambda *_: None)
            state = restore(folder.parents[1], read_only=True)
        equal = jax.tree.map(np.array_equal, state, state_at(3))
        if int(state.step) == 3 and not all(jax.tree.leaves(equal)):
            return
    raise AssertionError("Orbax notices every flipped bit")


def truncate_a_file(folder, random):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[: random.randint(path.stat().st_size)])


def delete_a_file(folder, random):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    files[random.randint(len(files))].unlink()


def empty_the_folder(folder, _):
    shutil.rmtree(folder)
    folder.mkdir()


def replace_by_text(folder, _):
    largest_file(folder).write_text("no arrays")


def replace_by_an_older_checkpoint(folder, _):
    """Put a copy of an older checkpoint in the newest checkpoint's folder."""
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("1"), folder)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        replace_by_an_older_checkpoint,
        *(pytest.param(kind, marks=pytest.mark.more) for kind in (truncate_a_file, empty_the_folder, replace_by_text)),
    ],
)
def test_newest_intact_checkpoint_is_restored(damage, workdir, tmp_path, caplog):
    for trial in range(2 if damage is flip_a_bit else 1):
        copy = shutil.copytree(workdir, tmp_path / str(trial))
        damage(copy / "checkpoints" / "3", np.random.RandomState(trial))
        assert_state_of_step(restore(copy, read_only=True), 2)
        assert (copy / "checkpoints" / "3").exists()
        assert_state_of_step(restore(copy), 2)
        line = caplog.messages[-1]
        assert line.startswith(f"{copy / 'checkpoints' / '3'}: found a damaged checkpoint (")
        assert line.endswith("using the checkpoint of step 2 instead")
        assert damage is not flip_a_bit or "(1 arrays differ from what was saved, the first is " in line
        assert {path.name for path in (copy / "checkpoints").iterdir()} == {"1", "2", "damaged-3-1"}
    with checkpoints.Checkpoints(copy, 3) as store:
        checkpointing.save(store, state_at(3))
    assert_state_of_step(restore(copy), 3)
    damage(copy / "checkpoints" / "3", np.random.RandomState(0))
    assert_state_of_step(restore(copy), 2)
    assert (copy / "checkpoints" / "damaged-3-2").exists()


def test_restored_state_is_complete_if_a_file_is_missing(workdir, tmp_path):
    """Whichever file is missing, all arrays of the restored state are from the same checkpoint."""
    for trial in range(3):
        copy = shutil.copytree(workdir, tmp_path / str(trial))
        delete_a_file(copy / "checkpoints" / "3", np.random.RandomState(trial))
        state = restore(copy)
        assert_state_of_step(state, int(state.step))


def test_checkpoints_stay_in_place_if_all_are_damaged(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    for step in (1, 2, 3):
        replace_by_text(copy / "checkpoints" / str(step), None)
    with pytest.raises(ValueError, match=r"checkpoints/3: found a damaged checkpoint .*, expected an intact one$"):
        restore(copy)
    assert {path.name for path in (copy / "checkpoints").iterdir()} == {"1", "2", "3"}


def test_requested_step_with_a_damaged_checkpoint_is_refused(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    replace_by_text(copy / "checkpoints" / "2", None)
    with pytest.raises(ValueError, match=r"checkpoints/2: found a damaged checkpoint"):
        checkpointing.restore(CONFIG, copy, step=2)
    assert_state_of_step(checkpointing.restore(CONFIG, copy), 3)


@pytest.mark.parametrize("fields", [{"energy__widths": (16, 16)}, {"energy__widths": (20,)}])
def test_checkpoint_of_another_network_is_refused(fields, workdir):
    other = tiny.config(**fields)
    message = r"checkpoints/3: found parameters of another model, \S+: .*, expected (\w+ \(.*\)|no such array), as this"
    with checkpoints.Checkpoints(workdir, read_only=True) as store, pytest.raises(ValueError, match=message) as error:
        checkpointing.read(store, other)
    assert "damaged" not in str(error.value)


def test_damaged_checkpoint_is_named_in_a_short_line(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    for folder in copy.glob("checkpoints/3/*/d"):
        shutil.rmtree(folder)
    with pytest.raises(
        ValueError, match=r"checkpoints/3: found a damaged checkpoint .*, expected an intact one$"
    ) as error:
        checkpointing.restore(CONFIG, copy, step=3)
    assert len(str(error.value)) < 400


def test_checkpoint_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    """A run that keeps one checkpoint saves the next one while another process samples."""
    with checkpoints.Checkpoints(tmp_path, 1) as writer, checkpoints.Checkpoints(tmp_path, read_only=True) as reader:
        checkpointing.save(writer, state_at(1))
        writer.wait()
        reader._manager.reload()
        read, attempts = reader._read, []

        def replace_then_read(step, template):
            attempts.append(step)
            if step == 1:
                checkpointing.save(writer, state_at(2))
                writer.wait()
            return read(step, template)

        monkeypatch.setattr(reader, "_read", replace_then_read)
        assert_state_of_step(checkpointing.read(reader, CONFIG), 2)
    assert attempts == [1, 2]


def test_run_from_before_persistent_chains_resumes(workdir, tmp_path):
    """Without persistent chains, a checkpoint has the fields of older versions. Missing config fields have defaults."""
    before = ("step", "key", "params", "average", "opt_state", "vectors", "attempt")
    assert train_state.stored(state_at(1))._fields == before
    copy = tmp_path / "workdir"
    shutil.copytree(workdir, copy)
    stored = json.loads((copy / "config.json").read_text())
    del stored["loss"]["elbo"], stored["x_chain"]["num_chains"]
    (copy / "config.json").write_text(json.dumps(stored))
    config_check.check_run(copy, CONFIG)
    with pytest.raises(ValueError, match=r"loss.elbo.weight is 0.0 in the file and 2.0 now"):
        config_check.check_run(copy, tiny.config(loss__elbo__weight=2.0))


def test_too_little_memory_is_no_damage(workdir, tmp_path, monkeypatch):
    copy = shutil.copytree(workdir, tmp_path / "copy")

    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 100 bytes.")

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "restore", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        restore(copy)
    assert {path.name for path in (copy / "checkpoints").iterdir()} == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request for 7.45GiB on device ordinal 0"), True),
        (RuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (ValueError("RESOURCE_EXHAUSTED: Error writing file: No space left on device"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error, expected):
    assert memory.ran_out(error) == expected


def test_save_is_repeated_if_the_clock_is_set_forward(tmp_path, monkeypatch):
    """Orbax measures its timeouts by the wall clock, which here advances a day per call until the save is repeated."""
    real, days, repeated = time.time, itertools.count(step=86400), []

    def warning(*_):
        repeated.append(True)
        monkeypatch.setattr(time, "time", real)

    monkeypatch.setattr(checkpoints._log, "warning", warning)
    with checkpoints.Checkpoints(tmp_path, 3) as store:
        monkeypatch.setattr(time, "time", lambda: real() + next(days))
        checkpointing.save(store, state_at(1))
        store.wait()
        assert store._unsaved is None
    assert repeated == [True]
    assert_state_of_step(restore(tmp_path), 1)
