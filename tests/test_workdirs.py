"""A process claims (locks) a workdir before it trains there."""

import json

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
