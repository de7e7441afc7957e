"""Runs are compared side by side: what is equal, what differs, and which is better."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from dualmcmc_jax.evaluation import comparison
from dualmcmc_jax.report import curves

STORED = Path(__file__).parent / "reference" / "stored_run"
METRICS = json.loads((STORED / "expected.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two evaluated runs of other seeds, one without an evaluation, one with a damaged one, and a folder."""
    folder = tmp_path_factory.mktemp("compare")
    for name in ("a", "b", "fresh", "damaged"):
        shutil.copytree(STORED / "workdir", folder / name)
        (folder / name / "metrics.jsonl").write_text('{"step": 3, "loss": 2.0}\n{"step": 4, "loss": 1.0}\n')
    config = json.loads((folder / "b" / "config.json").read_text())
    config["train"]["seed"], config["energy"]["kind"] = 7, "planted.py:Net"
    (folder / "b" / "config.json").write_text(json.dumps(config))
    changed = METRICS | {"reconstruction/encoder/mse": 0.5, "num_samples": 77, "auroc/<b>": 0.25}
    for name, metrics in (("a/evaluation/4", METRICS), ("a/evaluation/4-seed-1", changed), ("b/evaluation/4", changed)):
        (folder / name).mkdir(parents=True)
        (folder / name / "metrics.json").write_text(json.dumps(metrics))
    (folder / "damaged" / "evaluation" / "4").mkdir(parents=True)
    (folder / "damaged" / "evaluation" / "4" / "metrics.json").write_text("{")
    (folder / "planted.py").write_text("raise SystemExit('imported')")
    (folder / "empty").mkdir()
    return folder


def test_page_and_table_show_what_differs(folder, tmp_path, programs):
    done = programs.run("--mode=compare", f"{folder}/a", f"{folder}/b", f"{folder}/fresh", f"--out={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert f"{folder}/fresh: found no evaluation, expected metrics of --mode=evaluate" in done.stderr
    assert "a, b, fresh; their evaluations differ in num_samples, so metrics may not be comparable" in done.stdout
    rows = {row[0]: row[1:] for line in done.stdout.splitlines() if (row := re.split(r"  +", line.strip()))}
    assert rows["train.seed"] == ["0", "7", "0"]
    assert rows["energy.kind"] == ["mlp", "planted.py:Net", "mlp"]
    assert "train.batch_size" not in rows
    mse = f"{METRICS['reconstruction/encoder/mse']:.4g}"
    assert rows["MSE ↓, inference model q"] == [mse, "0.5 *", "-"]
    assert rows["Mean energy, training data"] == 2 * [f"{METRICS['energy/train/mean']:.4g}"] + ["-"]
    assert (rows["step"], rows["updates"]) == (["4", "4", "-"], 3 * ["4"])
    page = (tmp_path / "out" / "comparison.html").read_text()
    for text in ("planted.py:Net", mse, "AUROC ↑, &lt;b&gt;", "data:image/png;base64,"):
        assert text in page
    assert "<b>" not in page


def test_facts_of_evaluations_are_left_out_if_no_run_has_one(folder):
    runs = comparison.read({"fresh": folder / "fresh", "again": folder / "fresh"})
    assert [(block.title, list(block.table.rows)) for block in comparison.blocks(runs)] == [("Runs", ["updates"])]


def test_best_value_is_marked_if_others_differ():
    assert comparison._marked([1.0, 2.0, None], "higher") == ["1  ", "2 *", "-  "]
    assert comparison._marked([1.0, 2.0, 1.0], "lower") == ["1 *", "2  ", "1 *"]
    assert comparison._marked([1.0, 1.0, None], "lower") == ["1", "1", "-"]
    assert comparison._marked([1.0, 2.0], "") == ["1", "2"]


def test_runs_of_equal_names_are_shown_by_their_paths():
    assert comparison.names(["runs/a", "other/b/", "x/a"]) == ["runs/a", "b", "x/a"]


def test_curves_of_all_runs_share_their_panels():
    steps, values = np.arange(3), np.ones(3)
    history = {"energy_data": (steps, values), "energy_model": (steps, 3 * values), "light/mse": (steps, values)}
    figure = curves.compare({"one": history, "two": {"energy_loss": (steps, values)}})
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}
    assert {*panels} == {"energy_loss", "energy_data", "energy_model", "energy_gap"}
    one, two = panels["energy_gap"].lines
    np.testing.assert_array_equal(one.get_ydata(), -2)
    assert not len(two.get_ydata())
    assert [line.get_label() for line in panels["energy_loss"].lines] == ["one", "two"]
    assert curves.compare({"one": {}, "two": {}}) is None
    curves.plt.close(figure)


CASES = [
    ("a empty", "FOLDER/empty/config.json: found no such file, expected the config of a run"),
    ("a", "RUN: found FOLDER/a, expected two or more: RUN RUN ..."),
    ("a a", "RUN: found FOLDER/a twice, expected different runs"),
    ("a b --workdir=FOLDER/a", "--workdir: found with --mode=compare, expected only RUN RUN ..."),
]


def test_other_folders_and_flags_are_refused_in_one_line(folder, programs):
    before = sorted(folder.rglob("*"))
    running = []
    for arguments, _ in CASES:
        words = [word if word.startswith("--") else f"FOLDER/{word}" for word in arguments.split()]
        words = [word.replace("FOLDER", str(folder)) for word in ("--mode=compare", "--out=FOLDER/out", *words)]
        running.append(programs.start(*words))
    for program, (_, message) in zip(running, CASES, strict=True):
        assert program.wait(120) == 1
        assert program.stderr == f"error: {message.replace('FOLDER', str(folder))}\n"
    assert sorted(folder.rglob("*")) == before


def test_damaged_evaluation_is_named(folder, caplog):
    (run,) = comparison.read({"damaged": folder / "damaged"})
    assert run.metrics == {}
    assert "metrics.json: found no evaluation (" in caplog.text
