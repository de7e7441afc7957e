"""A run is used by its workdir alone. Flags and fields that are misspelt are named with the nearest right ones."""

import shutil
from pathlib import Path

import pytest

from dualmcmc_jax.spelling import did_you_mean

STORED = Path(__file__).parent / "reference" / "stored_run" / "workdir"


@pytest.fixture
def workdir(tmp_path):
    """A run of four updates, whose config is not that of any shipped config."""
    return Path(shutil.copytree(STORED, tmp_path / "runs" / "mine"))


def last(text):
    return text.strip().splitlines()[-1]


def test_run_is_exported_and_resumed_by_its_workdir_alone(workdir, tmp_path, programs):
    done = programs.run(f"--workdir={workdir}", "--mode=export", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "# mine" in (tmp_path / "out" / "README.md").read_text()
    (workdir / "metrics.jsonl").unlink()  # as after an import: no picture of step 4 is missing
    done = programs.run("--workdir", str(workdir))
    assert done.returncode == 0, done.stderr
    assert f"nothing to do: {workdir} is at step 4, train.num_steps is 4" in done.stderr


STEPS = "--config.evaluation.x_chain=(70, 6e-5, 0.002)"


@pytest.mark.parametrize(
    ("mode", "flags", "folder"),
    [
        ("sample", [], "samples"),
        ("sample", ["--seed=1"], "samples/seed-1"),
        ("sample", ["--step=4", "--seed=1"], "samples/step-4-seed-1"),
        ("sample", [STEPS], "samples/70-steps-size-6e-05-temperature-0.002"),
        ("sample", ["--config.evaluation.sampler=hmc"], "samples/hmc"),
        ("evaluate", ["--config.evaluation.sampler=langevin"], "evaluation/4"),
        ("evaluate", [], "evaluation/4"),
        ("evaluate", [STEPS, "--seed=1"], "evaluation/4-70-steps-size-6e-05-temperature-0.002-seed-1"),
        ("reconstruct", ["--input=digits", "--seed=1"], "reconstructions/seed-1"),
        ("restore", ["--input=digits", "--task=superres", "--factor=2"], "restorations/superres"),
    ],
)
def test_results_that_differ_have_folders_of_their_own(mode, flags, folder, workdir, programs):
    """The program is ended before the work."""
    end = "from dualmcmc_jax.runtime import storage; storage.check_writable = lambda _, folder: sys.exit(str(folder))"
    done = programs.run(f"--workdir={workdir}", f"--mode={mode}", *flags, code=f"import sys; {end}")
    assert last(done.stderr) == str(workdir / folder)


@pytest.mark.parametrize("flags", [(), ("--config=digits",)])
def test_config_that_differs_from_that_of_the_run_is_refused(flags, workdir, programs):
    done = programs.run(*flags, f"--workdir={workdir}", "--mode=sample", "--config.x_chain.num_steps=99")
    assert done.returncode == 1
    line = last(done.stderr)
    assert line.startswith(f"error: {workdir}/config.json: found a run with another config: ")
    assert "x_chain.num_steps is 3 in the file and 99 now" in line or "and 3 more" in line
    assert "expected the config of the run, which is used without --config, or a new folder" in line


def test_damaged_config_of_a_run_is_named_in_one_line(workdir, programs):
    (workdir / "config.json").write_text("{")
    done = programs.run(f"--workdir={workdir}", "--mode=sample")
    assert done.returncode == 1
    assert last(done.stderr).startswith(f"error: {workdir}/config.json: found Expecting property name")


@pytest.mark.parametrize(
    ("module", "flags", "expected"),
    [
        ("main", [], "--config=NAME or --workdir=DIR; see --help"),
        ("study", ["table4", "--workdir=x"], "--config=NAME; see --help"),
    ],
)
def test_field_without_a_config_is_refused(module, flags, expected, programs):
    done = programs.run(*flags, "--config.train.num_steps=10", module=f"dualmcmc_jax.{module}")
    assert done.returncode == 1
    assert done.stderr == f"error: --config.train.num_steps: found without --config, expected also {expected}\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("digit", "; did you mean digits?"), ("evalute", "; did you mean evaluate?"), ("zzz", ""), ("", "")],
)
def test_nearest_name_is_suggested(name, expected):
    assert did_you_mean(name, ("digits", "evaluate", "export")) == expected
