"""Damaged checkpoints are named and set aside, and the newest whole one is taken."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
import tiny

from dualmcmc_jax import config_check, models
from dualmcmc_jax.runtime import checkpoints, workdirs
from dualmcmc_jax.training import checkpointing, optimizers
from dualmcmc_jax.training import state as train_state

CONFIG = tiny.config()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir with checkpoints of steps 1, 2 and 3, whose arrays tell them apart."""
    workdir = tmp_path_factory.mktemp("checkpoints")
    with workdirs.claim(workdir, CONFIG.to_dict()), checkpoints.Checkpoints(workdir, 3) as store:
        for step in (1, 2, 3):
            checkpointing.save(store, at(step))
    return workdir


@functools.cache
def at(step):
    state = train_state.create(CONFIG, models.build(CONFIG), optimizers.build(CONFIG, steps_per_epoch=1))
    return jax.tree.map(lambda x: np.asarray(x + step, x.dtype), state)._replace(step=np.asarray(step, np.int32))


def restore(workdir, **kind):
    with checkpoints.Checkpoints(workdir, None if kind else 3, **kind) as store:
        return checkpointing.read(store, CONFIG)


def same(state, step):
    jax.tree.map(np.testing.assert_array_equal, state, at(step))


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(folder, random):
    path = largest(folder)
    data = bytearray(path.read_bytes())
    data[random.randint(len(data))] ^= 1 << random.randint(8)
    path.write_bytes(data)


def truncate(folder, random):
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: random.randint(path.stat().st_size)])


def lose(folder, random):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    files[random.randint(len(files))].unlink()


def empty(folder, _):
    shutil.rmtree(folder)
    folder.mkdir()


def text(folder, _):
    largest(folder).write_text("no arrays")


def rename(folder, _):
    """An older checkpoint under the newest one's name."""
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("1"), folder)


@pytest.mark.parametrize(
    "damage", [flip, rename, *(pytest.param(kind, marks=pytest.mark.more) for kind in (truncate, empty, text))]
)
def test_the_newest_whole_checkpoint_is_taken(damage, workdir, tmp_path, caplog):
    for trial in range(2 if damage is flip else 1):
        copy = shutil.copytree(workdir, tmp_path / str(trial))
        damage(copy / "checkpoints" / "3", np.random.RandomState(trial))
        same(restore(copy, read_only=True), 2)
        assert (copy / "checkpoints" / "3").exists()
        same(restore(copy), 2)
        line = caplog.messages[-1]
        assert line.startswith(f"{copy / 'checkpoints' / '3'}: found a damaged checkpoint (")
        assert line.endswith("using the checkpoint of step 2 instead")
        assert {path.name for path in (copy / "checkpoints").iterdir()} == {"1", "2", "damaged-3-1"}
    with checkpoints.Checkpoints(copy, 3) as store:
        checkpointing.save(store, at(3))
    same(restore(copy), 3)
    damage(copy / "checkpoints" / "3", np.random.RandomState(0))
    same(restore(copy), 2)
    assert (copy / "checkpoints" / "damaged-3-2").exists()


def test_no_file_is_lost_in_silence(workdir, tmp_path):
    """Whichever file is missing, what is restored is one whole checkpoint."""
    for trial in range(3):
        copy = shutil.copytree(workdir, tmp_path / str(trial))
        lose(copy / "checkpoints" / "3", np.random.RandomState(trial))
        state = restore(copy)
        same(state, int(state.step))


def test_if_all_are_damaged_none_is_touched(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    for step in (1, 2, 3):
        text(copy / "checkpoints" / str(step), None)
    with pytest.raises(ValueError, match=r"checkpoints/3: found a damaged checkpoint .*there is no other checkpoint"):
        restore(copy)
    assert {path.name for path in (copy / "checkpoints").iterdir()} == {"1", "2", "3"}


def test_a_damaged_one_that_was_asked_for_is_refused(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    text(copy / "checkpoints" / "2", None)
    with pytest.raises(ValueError, match=r"checkpoints/2: found a damaged checkpoint"):
        checkpointing.restore(CONFIG, copy, step=2)
    same(checkpointing.restore(CONFIG, copy), 3)


def test_another_network_is_refused(workdir):
    other = tiny.config(energy__widths=(16, 16))
    with checkpoints.Checkpoints(workdir, read_only=True) as store, pytest.raises(ValueError, match="found a damaged"):
        checkpointing.read(store, other)


def test_a_run_from_before_chains_could_persist_goes_on(workdir, tmp_path):
    """Without them, what is stored is what was stored then; fields that its config.json lacks have their defaults."""
    before = ("step", "key", "params", "average", "opt_state", "vectors", "attempt")
    assert train_state.stored(at(1))._fields == before
    copy = tmp_path / "workdir"
    shutil.copytree(workdir, copy)
    stored = json.loads((copy / "config.json").read_text())
    del stored["loss"]["elbo"], stored["x_chain"]["num_chains"]
    (copy / "config.json").write_text(json.dumps(stored))
    config_check.check_run(copy, CONFIG)
    with pytest.raises(ValueError, match=r"loss.elbo.weight is 0.0 in the file and 2.0 now"):
        config_check.check_run(copy, tiny.config(loss__elbo__weight=2.0))
