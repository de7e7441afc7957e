"""Studies: their statistics compared with hand calculations, their processes, and one small study.

Tests of the processes replace `dualmcmc_jax.main` by a stand-in that trains nothing.
"""

import importlib
import json
import math
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from dualmcmc_jax.cli import command_line
from dualmcmc_jax.configs import studies
from dualmcmc_jax.study import jobs, runs, tables
from dualmcmc_jax.study.definitions import Claim, Study, beats, changed
from dualmcmc_jax.study.runs import Result

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STUDY = """
from dualmcmc_jax.study import Study, beats, changed
def get_study(config):
    variants = {f"{k} x-steps": changed(config, x_chain__num_steps=k) for k in (1, 2)}
    return Study(variants, (beats("2 x-steps", "1 x-steps"),), ("FID", {"2 x-steps": 9.0}))
"""
STAND_IN = """#!PYTHON -S
import atexit, json, os, pathlib, signal, sys, time
given = dict(arg.lstrip("-").partition("=")[::2] for arg in sys.argv[3:])
work, steps = pathlib.Path(given["workdir"]), int(given["config.train.num_steps"])
seed, gpu = int(given["config.train.seed"]), os.environ.get("CUDA_VISIBLE_DEVICES")
def stop(*_):
    signal.signal(signal.SIGTERM, lambda *_: (work / "killed").touch() or os._exit(143))
    time.sleep(0.1 + 0.7 * seed)  # the time that saving takes
    (work / "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([given.get("mode", "train"), str(work), steps, gpu, os.getppid()]) + "\\n")
def note(what):
    with open(os.environ["CALLS"] + ".order", "a") as order:
        order.write(what + " " + str(work) + "\\n")
note("begin")
atexit.register(note, "end")
time.sleep(float(os.environ.get("SECONDS_EACH", 0)))
while "UNTIL" in os.environ and not os.path.exists(os.environ["UNTIL"]):
    time.sleep(0.02)
if int(given["config.x_chain.num_steps"]) == 2 and seed == 1 and "FAIL" in os.environ:
    sys.exit("error: " + os.environ["FAIL"])
if "mode" in given:
    out = pathlib.Path(given["out"])
    out.mkdir(parents=True, exist_ok=True)
    kl = 1 / int(given["config.x_chain.num_steps"]) + 0.01 * seed
    (out / "metrics.json").write_text(json.dumps({"density/ebm/kl_data_model": kl}))
else:
    rate = 10.0 * int(given["config.x_chain.num_steps"])
    rows = [{"step": s, "steps_per_second": r} for s, r in ((1, 0.1), (2, rate), (3, rate))]
    (work / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Replace dualmcmc_jax.main by the stand-in. Return a function that lists the calls of the stand-in."""
    program, calls = tmp_path / "program", tmp_path / "calls"
    program.write_text(STAND_IN.replace("PYTHON", sys.executable))
    program.chmod(0o755)
    calls.write_text("")
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setattr(jobs.sys, "executable", str(program))
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()]


def order(tmp_path):
    """Return the order in which stand-ins began and ended, as lines "begin WORKDIR" and "end WORKDIR"."""
    return (tmp_path / "calls.order").read_text().splitlines()


def two(num_steps=20):
    config = changed(importlib.import_module("dualmcmc_jax.configs.toy2d").get_config(), train__num_steps=num_steps)
    return {f"{k} x-steps": changed(config, x_chain__num_steps=k) for k in (1, 2)}


def settings(workdir, seeds=range(2), num_jobs=1, seconds=0.0):
    return runs.Settings(workdir, seeds, num_jobs, seconds, ())


def test_confidence_interval_equals_hand_calculation():
    """The values 1, 2, 4 have the mean 7/3 and the standard error sqrt(7)/3.

    The 97.5% quantile of Student's t with two degrees of freedom is 4.302652730.
    """
    assert tables.interval([1, 2, 4]) == pytest.approx((7 / 3, 4.302652730 * np.sqrt(7) / 3))
    assert tables.interval([5.0]) == (5.0, math.inf)


def results(a, b, name="density/ebm/kl_data_model"):
    made = lambda values: [
        Result(seed, {name: value} if value is not None else {}) for seed, value in enumerate(values)
    ]
    return {"a": made(a), "b": made(b)}


def test_verdicts_compare_runs_of_equal_seed():
    """A claim holds if all seeds agree, although the seeds differ by more than the variants."""
    claim = beats("a", "b")
    assert tables.verdict(claim, results([1, 2, 3], [1.1, 2.12, 3.09])).startswith(
        "holds: a beats b in quality (by 0.103 ± 0.038"
    )
    assert tables.verdict(claim, results([1.1, 2.12, 3.09], [1, 2, 3])).startswith(
        "does NOT hold: a beats b in quality (by -0.103"
    )
    undecided = tables.verdict(claim, results([1, 2, 3], [1.1, 1.9, 3.2]))
    assert undecided.startswith("not decided: ")
    assert undecided.endswith("; 2 of 3 seeds in favor)")
    one_seed = tables.verdict(claim, results([1], [2]))
    assert one_seed == "not decided: a beats b in quality (by 1; 1 of 1 seeds in favor)"
    assert tables.verdict(claim, results([None], [1])) == "not measured: a beats b in quality"
    assert "(by 2; 2 of 2" in tables.verdict(claim, results([1, None, 3], [3, 9, 5]))
    shrinking = Claim("x", ((1, "a", "quality"), (-2, "b", "quality")))
    assert tables.verdict(shrinking, results([4, 4.1], [1, 1])).startswith("holds: x (by 2.05")
    higher = tables.verdict(beats("a", "b", "score"), results([6.5, 6.6], [6.1, 6.2], "revised/svc_score"))
    assert higher.startswith("holds: a beats b in score (by 0.4")
    not_finite = {"density/ebm/kl_data_model": None, "density/generator/kl_data_model": 0.0}
    diverged = results([], [1, 1.2]) | {"a": [Result(0, not_finite), Result(1, not_finite)]}
    assert tables.verdict(claim, diverged) == ("not decided: a beats b in quality (by -inf; 0 of 2 seeds in favor)")


def test_table_shows_the_columns_that_were_measured():
    """Metrics are selected by prefix. A column without numbers is omitted, and a missing number is shown as a dash."""
    metrics = {"auroc/noise": 0.8, "auroc/constant": 0.6}
    assert tables.value({"revised/frechet_pixels": None}, "quality") == math.inf
    assert tables.value(metrics, "auroc/") == pytest.approx(0.7)
    assert tables.value(metrics, "quality") is None
    generator = metrics | {"density/generator/kl_data_model": 0.2, "revised/frechet_x": 0.1}
    assert tables.value(generator, "quality") == 0.2
    assert tables.value(generator | {"density/ebm/kl_data_model": 0.3}, "quality") == 0.3
    assert tables.value(generator | {"density/ebm/kl_data_model": 0.3, "revised/fid": 9.0}, "quality") == 9
    assert tables.value(metrics, "reconstruction") is None
    assert tables.value({"revised/svc_score": 6.5}, "score") == 6.5
    errors = {"reconstruction/encoder/mse": 0.3, "reconstruction/noise_chain/mse": 0.2}
    errors["reconstruction/encoder/psnr"] = 0
    assert tables.value(metrics | errors, "reconstruction") == 0.2
    of_three = results([0.1, 0.3], [0.5, None]) | {"c": [Result(0, {"revised/frechet_pixels": 2.0}, "")]}
    grid = tables.table(Study({}, (), ("FID", {"b": 9.26})), of_three)
    assert grid == [
        ["", "KL(data, EBM)", "Frechet", "seeds", "paper: FID"],
        ["a", "0.2 ± 1.3", "-", "2", "-"],
        ["b", "0.5", "-", "1 of 2", "9.26"],
        ["c", "-", "2", "1", "-"],
    ]


def test_every_variant_is_trained_and_evaluated_with_every_seed(stand_in, tmp_path):
    """A second command with the same settings runs nothing and returns the same results."""
    first = runs.run(two(), settings(tmp_path / "study"))
    calls = stand_in()
    assert [call[0] for call in calls] == ["train", "evaluate"] * 4
    assert len({call[1] for call in calls}) == 4
    assert [r.metrics["density/ebm/kl_data_model"] for r in first["2 x-steps"]] == pytest.approx([0.5, 0.51])
    assert first["2 x-steps"][0].metrics["seconds"] == pytest.approx(20 / 20)
    assert runs.run(two(), settings(tmp_path / "study")) == first
    assert stand_in() == calls
    assert len(runs.run(two(), settings(tmp_path / "study", range(3)))["1 x-steps"]) == 3
    assert len(stand_in()) == 12
    runs.run(two(), settings(tmp_path / "study")._replace(flags=("--inception_weights=x",)))
    assert [call[0] for call in stand_in()[12:]] == ["train", "evaluate"] * 4  # other flags give other results
    longer = runs.run(two(num_steps=30), settings(tmp_path / "study"))
    assert longer["1 x-steps"][0].metrics["num_steps"] == 30


def test_stored_runs_of_another_config_or_length_are_refused(stand_in, tmp_path):
    """Stored runs with other configs, or with more updates than requested, are refused before anything is run."""
    folder = tmp_path / "1-x-steps" / "0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(two()["1 x-steps"].to_dict()))
    with pytest.raises(ValueError, match=r"^train.num_steps: found a run of 20 updates in .*; name another --workdir"):
        runs.run(two(num_steps=10), settings(tmp_path))
    others = {name: changed(config, train__batch_size=8) for name, config in two().items()}
    with pytest.raises(
        ValueError, match=r"found a run with another config: train.batch_size is 256 in the file and 8 now"
    ):
        runs.run(others, settings(tmp_path))
    assert not stand_in()
    runs.run(two(num_steps=30), settings(tmp_path))


def test_variants_train_for_equal_seconds(stand_in, tmp_path):
    """Variants with 10 and 20 updates per second are trained for 300 and 600 updates in 30 seconds.

    The rates are measured only once. The final learning rates are those of the config.
    """
    results_of = runs.run(two(), settings(tmp_path, range(1), seconds=30.0))
    assert [r[0].metrics["num_steps"] for r in results_of.values()] == [300, 600]
    assert [call[2] for call in stand_in() if call[0] == "train"] == [runs.PILOT_STEPS] * 2 + [300, 600]
    made_with = json.loads((tmp_path / "1-x-steps" / "0" / "evaluation" / "300" / "study.json").read_text())
    (decay,) = (float(flag.split("=")[1]) for flag in made_with if flag.startswith("--config.optimizer.decay="))
    assert decay**300 == pytest.approx(two()["1 x-steps"].optimizer.decay ** 20)
    runs.run(two(), settings(tmp_path, range(1), seconds=30.0))
    assert len(stand_in()) == 6


def test_variants_that_differ_only_in_their_data_share_one_pilot_run(stand_in, tmp_path):
    other_data = {f"rings, {name}": changed(config, data__source="toy2d:rings") for name, config in two().items()}
    results_of = runs.run(two() | other_data, settings(tmp_path, range(1), seconds=30.0))
    assert [r[0].metrics["num_steps"] for r in results_of.values()] == [300, 600, 300, 600]
    assert [call[2] for call in stand_in() if call[0] == "train"].count(runs.PILOT_STEPS) == 2


def test_failed_run_is_reported_and_retried(stand_in, tmp_path, monkeypatch):
    """The table shows the reason of the failure. The other runs continue, and the next command retries the run."""
    monkeypatch.setenv("FAIL", "step 7: it failed")
    results_of = runs.run(two(), settings(tmp_path))
    assert results_of["2 x-steps"][1].problem == "exit code 1: error: step 7: it failed"
    assert results_of["2 x-steps"][1].failed
    assert not results_of["2 x-steps"][0].problem
    shown = tables.text(Study(two(), (beats("2 x-steps", "1 x-steps"),)), results_of)
    assert "2 x-steps, seed 1: exit code 1: error: step 7: it failed" in shown
    assert "1 of 2" in shown
    assert "reached the end" not in shown
    tables.write(tmp_path, Study(two()), results_of)
    assert json.loads((tmp_path / "results.json").read_text())["2 x-steps"][1]["problem"]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.delenv("FAIL")
    assert not runs.run(two(), settings(tmp_path))["2 x-steps"][1].problem


def test_that_a_run_diverges_is_a_result(stand_in, tmp_path, monkeypatch):
    """The table says how many runs reached the end. The next command does not repeat a run that diverged."""
    problem = "step 7: energy_loss is nan; training has diverged; the last good state is from step 0"
    monkeypatch.setenv("FAIL", problem)
    results_of = runs.run(two(), settings(tmp_path))
    diverged = results_of["2 x-steps"][1]
    assert diverged.metrics == {"study/reached_end": 0.0, "diverged_at": 7}
    assert not diverged.failed
    header, one, two_steps = tables.table(Study(two()), results_of)
    assert header[1:4] == ["reached the end", "diverged at", "KL(data, EBM)"]
    assert one[1:3] == ["1", "-"]
    assert two_steps[1].startswith("0.5 ± ")
    assert (two_steps[2], two_steps[-1]) == ("7", "1 of 2")
    survives = Claim("survives", ((1, "1 x-steps", "study/reached_end"), (-1, "2 x-steps", "study/reached_end")))
    assert tables.verdict(survives, results_of).startswith("not decided: survives (by 0.5")
    assert f"2 x-steps, seed 1: exit code 1: error: {problem}" in tables.text(Study(two()), results_of)
    calls = len(stand_in())
    assert runs.run(two(), settings(tmp_path)) == results_of
    assert len(stand_in()) == calls
    runs.run(two(num_steps=30), settings(tmp_path))  # other settings, so the run is tried again
    assert len(stand_in()) == calls + 7


def test_first_divergence_of_a_run_with_rollbacks_is_reported(tmp_path):
    rows = [{"step": 1, "x": 0.1}, {"step": 4, "rollbacks": 1, "diverged_at": 6}, {"step": 8, "rollbacks": 2}]
    rows[2]["diverged_at"] = 9
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert runs._first_divergence(tmp_path, "") == {"diverged_at": 6}
    assert runs._first_divergence(tmp_path, "error: step 11: x is nan; training has diverged; y") == {"diverged_at": 6}
    assert runs._first_divergence(tmp_path / "none", "error: the disk is full") == {}


def test_each_job_has_its_own_gpu(stand_in, tmp_path, monkeypatch):
    """Two jobs run at a time, each on one of the two GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("SECONDS_EACH", "0.5")
    runs.run(two(), settings(tmp_path, range(2), num_jobs=2))
    assert {call[3] for call in stand_in()} == {"4", "7"}
    changes = [1 if line.startswith("begin") else -1 for line in order(tmp_path)]
    assert set(np.cumsum(changes)) == {0, 1, 2}


COMMAND = """
import sys
from pathlib import Path
sys.path.append(TESTS)
import test_study
from dualmcmc_jax.study import jobs
jobs.sys.executable, workdir, num_jobs = sys.argv[1:]
try:
    results = test_study.runs.run(test_study.two(), test_study.settings(Path(workdir), range(3), int(num_jobs)))
    print({name: len(of_variant) for name, of_variant in results.items()})
except jobs.Stopped as stopped:
    sys.exit(print(stopped) or 75)
"""


@pytest.fixture
def start(programs, stand_in):
    """Return a function that starts a process, which runs the study of `two` with three seeds."""
    code = COMMAND.replace("TESTS", repr(str(Path(__file__).parent)))

    def start(workdir, seconds, num_jobs=1, **environment):
        env = {"CALLS": os.environ["CALLS"], "SECONDS_EACH": str(seconds)} | environment
        return programs.start(jobs.sys.executable, str(workdir), str(num_jobs), code=code, module=None, env=env)

    return start


def printed(process):
    """Return what a process has printed at its end."""
    process.wait(60)
    return process.stdout


def test_two_commands_share_the_runs(start, stand_in, tmp_path):
    """If two commands use one folder, one of the two makes each run, and both print all results."""
    both = [start(tmp_path / "study", 0.6) for _ in range(2)]
    assert {printed(process) for process in both} == {"{'1 x-steps': 3, '2 x-steps': 3}\n"}
    assert len(stand_in()) == len({tuple(call[:2]) for call in stand_in()}) == 12
    assert min(sum(call[4] == process.pid for call in stand_in()) for process in both) >= 2


MORE = [pytest.param(number, marks=pytest.mark.more) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]


@pytest.mark.parametrize("number", [signal.SIGINT, *MORE])
def test_stopped_study_can_be_continued(number, start, stand_in, tmp_path):
    """Each process gets one signal, however long saving takes, and no other process is started."""
    process = start(tmp_path / "study", 30, num_jobs=4)
    while len(stand_in()) < 4:
        time.sleep(0.05)
    process.send_signal(number)
    assert printed(process) == "stopped; run the same command again to continue\n"
    assert process.returncode == 75
    assert len(stand_in()) == 4
    assert len(list(tmp_path.rglob("saved"))) == 4
    assert not list(tmp_path.rglob("killed"))
    assert printed(start(tmp_path / "study", 0)).startswith("{'1 x-steps': 3")
    assert len(stand_in()) == 4 + 12


def test_study_starts_no_run_after_the_notice_of_a_time_limit(stand_in, tmp_path):
    with jobs.Jobs(1) as workers, workers.claim(tmp_path) as lock:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(jobs.Stopped):
            workers.main(tmp_path, lock)
    assert not stand_in()


def test_runs_of_a_killed_study_are_not_started_twice(start, stand_in, tmp_path):
    """The process of a run continues after its study was killed. The next command waits for this process."""
    process = start(tmp_path / "study", 0, UNTIL=str(tmp_path / "go"))
    while not stand_in():
        time.sleep(0.05)
    process.kill()
    process.wait(60)
    again = start(tmp_path / "study", 0)
    while len(stand_in()) < 1 + 2 * 5:  # until all other runs are finished
        time.sleep(0.05)
    (tmp_path / "go").touch()
    assert printed(again).startswith("{'1 x-steps': 3")
    _, workdir, *_ = first = stand_in()[0]
    assert [call[0] for call in stand_in() if call[1] == workdir] == ["train", "train", "evaluate"]
    # The last training is that of the killed study. It begins after all other runs and has nothing left to do.
    assert [call[:2] for call in stand_in()].index(first[:2], 1) == 11


def test_flags_of_a_config_recreate_the_config(monkeypatch):
    config = importlib.import_module("dualmcmc_jax.configs.celeba64").get_config()
    config.evaluation.ood = ("tfds:svhn_cropped", "digits")
    monkeypatch.setattr(sys, "argv", ["program", *runs.flags_of(config)])
    flags.FLAGS.unparse_flags()
    command_line.parse(sys.argv)
    assert command_line.CONFIG.value.to_dict() == config.to_dict()


@pytest.mark.parametrize("path", sorted(Path(studies.__file__).parent.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_claims_and_paper_numbers_name_existing_variants(path):
    """Also, no two variants have the same folder or the same config."""
    base = "toy2d" if path.stem == "densities" else "digits"
    config = importlib.import_module(f"dualmcmc_jax.configs.{base}").get_config()
    study = importlib.import_module(f"dualmcmc_jax.configs.studies.{path.stem}").get_study(config)
    named = {name for claim in study.claims for _, name, _ in claim.terms} | set(study.paper[1])
    assert named <= study.variants.keys()
    assert len({runs.slug(name) for name in study.variants}) == len(study.variants)
    assert len({str(variant) for variant in study.variants.values()}) == len(study.variants)


def test_command_runs_a_study_from_a_file(programs, tmp_path):
    """The command trains, evaluates and prints a table with a claim, without a stand-in. There is only one variant."""
    claim = 'Claim("2 x-steps have a distance above 0", ((1, "2 x-steps", "quality"),))'
    study = STUDY.replace("beats, changed", "Claim, changed").replace('beats("2 x-steps", "1 x-steps")', claim)
    (tmp_path / "mine.py").write_text(study.replace("(1, 2)", "(2,)"))
    tiny = [f"--config.{name}.widths=(8,)" for name in ("energy", "generator", "encoder")]
    tiny += ["--config.train.num_steps=4", "--config.evaluation.num_samples=60", "--config.log.every=2"]
    tiny += ["--config.train.batch_size=20", "--config.evaluation.num_held_out=20", "--config.train.unroll=1"]
    folder = tmp_path / "study"
    arguments = ["--config=digits", *tiny, "--seeds=1", f"--workdir={folder}"]
    command = partial(programs.run, str(tmp_path / "mine.py"), *arguments, module="dualmcmc_jax.study")
    done = command()
    assert done.returncode == 0, done.stderr
    assert "not decided: 2 x-steps have a distance above 0 (by " in done.stdout
    assert (folder / "table.txt").read_text() in done.stdout
    assert (folder / "2-x-steps" / "0" / "evaluation" / "4" / "report.html").exists()
    done = command("--config.train.batch_size=30")
    assert done.returncode == 1
    assert "config.json: found a run with another config: train.batch_size is 20 in the file and 30 now" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["table9", "--config=digits"],
            "study: found 'table9', expected a Python file or one of baselines, densities, stability, table3",
        ),
        (["table4"], "--config: found nothing"),
        (["FOLDER/misspelt.py", "--config=digits"], "misspelt.py, line 4: "),
        (["FOLDER/alike.py", "--config=digits"], "study: found variants x-y, x y, expected names that differ in"),
        (["FOLDER/claim.py", "--config=digits"], "study: found variant '1 x-steps' and metric 'qualty' in claim"),
        (["FOLDER/none.py", "--config=digits"], "study: found no study in"),
        (["rivals", "--config=digits"], "study: found 'rivals', expected its new name, baselines"),
        (["baselines", "--config=baselines/vae:digits"], "study: found the config of a baseline method"),
        (["FOLDER/mis.py", "--config=digits"], "mis.py', expected a Python file or one of"),
        (["table4", "--config=digits:toy2d"], "--config: found a colon after 'digits'"),
        (
            ["table4", "--config=baselines/vae:baselines/abp"],
            "--config: found 'baselines/abp' after the colon, expected one of",
        ),
        (
            ["table4", "--config=digits", "--mode=sample"],
            "--mode: found a flag that this program does not use, expected only --config, --seeds",
        ),
        (["table4", "--config=digits", "--inception_weights=/no"], "--inception_weights: found no file /no"),
        (
            ["table4", "--config=digits", "--config.train.batch_size=0"],
            "z-steps: train.batch_size: found 0, expected 1",
        ),
    ],
)
def test_bad_flags_are_refused(flags, message, tmp_path, programs):
    (tmp_path / "misspelt.py").write_text(STUDY.replace("x_chain__", "x_chan__"))
    (tmp_path / "claim.py").write_text(STUDY.replace('"1 x-steps"', '"1 x-steps", "qualty"'))
    (tmp_path / "none.py").write_text("get_study = lambda config: {}")
    (tmp_path / "alike.py").write_text(STUDY.replace("{k} x-steps", "x{'- '[k - 1]}y"))
    flags = [flag.replace("FOLDER", str(tmp_path)) for flag in flags]
    done = programs.run(*flags, f"--workdir={tmp_path / 'x'}", module="dualmcmc_jax.study")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()
