"""Damaged files of a study are computed anew. A stand-in takes the place of the processes of the runs."""

import contextlib
import json
from pathlib import Path

import pytest
import tiny

from dualmcmc_jax.study import runs


class Workers:
    """A stand-in for `jobs.Jobs`, whose runs make 20 updates per second. `modes` lists the runs."""

    def __init__(self):
        self.modes = []

    @contextlib.contextmanager
    def claim(self, folder, *, wait=True):
        folder.mkdir(parents=True, exist_ok=True)
        yield True

    def main(self, workdir, _lock, *flags):
        given = dict(flag.partition("=")[::2] for flag in flags)
        self.modes.append(given.get("--mode", "train"))
        rows = ({"step": step, "steps_per_second": 20.0} for step in (10, 20))
        (workdir / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        if "--out" in given:
            Path(given["--out"]).mkdir(parents=True, exist_ok=True)
            (Path(given["--out"]) / "metrics.json").write_text('{"quality": 1.5}')
        return ""


DAMAGED = ["", "{", "[1]", "3", '"x"', '{"of": []}', "[" * 100_000]


@pytest.mark.parametrize("content", [*DAMAGED, '{"of": KEY}', '{"of": KEY, "steps_per_second": NaN}'])
def test_damaged_rate_is_measured_anew(content, tmp_path):
    workers, settings = Workers(), runs.Settings(tmp_path, range(1), 1, 3.0, ())
    measured_rate = lambda: runs._pilot(workers, settings, "a", tiny.config())
    assert measured_rate() == measured_rate() == 20
    assert workers.modes == ["train"]
    rate = tmp_path / "a" / "rate.json"
    intact = rate.read_text()
    rate.write_text(content.replace("KEY", json.dumps(json.loads(intact)["of"])))
    assert measured_rate() == 20
    assert workers.modes == ["train", "train"]
    assert rate.read_text() == intact


@pytest.mark.parametrize("name", ["study.json", "metrics.json"])
@pytest.mark.parametrize("content", [text for text in DAMAGED if text not in ("[1]", '{"of": []}')] + ["KIND"])
def test_damaged_result_is_made_anew(content, name, tmp_path, caplog):
    workers = Workers()
    result = lambda: runs._train_and_evaluate(workers, tmp_path, tiny.config(), (), wait=True)
    assert (
        result()
        == result()
        == runs.Result(0, {"quality": 1.5, "num_steps": 40, "seconds": 2.0, "study/reached_end": 1.0})
    )
    assert workers.modes == ["train", "evaluate"]
    path = tmp_path / "evaluation" / "40" / name
    intact = path.read_text()
    path.write_text(content.replace("KIND", "{}" if name == "study.json" else "[]"))
    assert result().metrics["quality"] == 1.5
    assert workers.modes == ["train", "evaluate"] * 2
    assert path.read_text() == intact
    assert caplog.messages[0].startswith(f"{path}: found a damaged file (")
