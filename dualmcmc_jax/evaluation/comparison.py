"""How do runs compare? The metrics, curves, samples and config differences of several runs side by side."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualmcmc_jax import config_check
from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.evaluation import suite
from dualmcmc_jax.report import curves
from dualmcmc_jax.report.sections import Block, Metric, Table, number
from dualmcmc_jax.runtime import storage, workdirs

_log = logging.getLogger(__name__)
COMPARABLE = ("features", "num_samples", "num_train", "num_held_out")
"""Facts of an evaluation that must be equal, or else its metrics are not comparable with those of another one."""
BEST = " *"
"""Mark of the best value of a row."""


class Run(NamedTuple):
    """A run to compare.

    Attributes:
      name: name of the run in tables.
      config: the fields of its config.
      metrics: facts and metrics of its newest evaluation by key, empty if it has not been evaluated.
      history: metrics of its training.
      samples: a picture of its samples, or None.
    """

    name: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    history: curves.History
    samples: Path | None


def read(workdirs_by_name: Mapping[str, Path]) -> list[Run]:
    """Read the runs of workdirs. A run that has not been evaluated is read with a warning.

    Args:
      workdirs_by_name: the folders of the runs, by the names of the runs.

    Raises:
      ValueError: a folder holds no run.
    """
    configs = {name: config_check.stored_config(folder) for name, folder in workdirs_by_name.items()}  # checks them all
    return [_run(name, folder, config_check.fields(configs[name])) for name, folder in workdirs_by_name.items()]


def names(paths: Sequence[str]) -> list[str]:
    """Return a name for each path: its last part, or the path itself if several paths have the same last part.

    Raises:
      ValueError: a path is given twice.
    """
    lasts = [path.rstrip("/").rpartition("/")[2] for path in paths]
    if twice := [path for i, path in enumerate(paths) if path in paths[:i]]:
        raise ValueError(f"RUN: found {twice[0]} twice, expected different runs")
    return [last if lasts.count(last) == 1 else path for last, path in zip(lasts, paths, strict=True)]


def summary(runs: Sequence[Run]) -> str:
    """Return one line that names the runs, and in what their evaluations differ if they are not comparable."""
    values = {fact: {str(run.metrics.get(fact)) for run in runs if run.metrics} for fact in COMPARABLE}
    unequal = [fact for fact, different in values.items() if len(different) > 1]
    warning = f"; their evaluations differ in {', '.join(unequal)}, so metrics may not be comparable" if unequal else ""
    return f"{len(runs)} runs side by side: {', '.join(run.name for run in runs)}{warning}"


def blocks(runs: Sequence[Run]) -> list[Block]:
    """Lay out what differs between runs as tables with one column per run.

    Args:
      runs: the runs.
    """
    columns = [run.name for run in runs]
    known = [fact for fact in suite.FACTS if any(fact in run.metrics for run in runs)]
    facts = {
        "updates": [f"{max((steps[-1] for steps, _ in run.history.values()), default=0):,.0f}" for run in runs],
        **{fact.replace("_", " "): [_shown(run.metrics.get(fact)) for run in runs] for fact in known},
    }
    fields = sorted({name for run in runs for name in run.config})
    config = {name: [_shown(run.config.get(name)) for run in runs] for name in fields}
    config = {name: values for name, values in config.items() if len({*values}) > 1}
    best = "An asterisk marks the best value of a row. It does not say whether the difference is larger than chance."
    tables = {"Runs": facts, "Config differences": config} | _metrics(runs)
    return [
        Block(title, best if title == "Runs" else "", Table(columns, rows), [])
        for title, rows in tables.items()
        if rows
    ]


def _metrics(runs: Sequence[Run]) -> dict[str, dict[str, list[str]]]:
    """Return the cells of each metric by the heading of its row, by the title of its section."""
    keys = dict.fromkeys(key for run in runs for key in run.metrics if key not in suite.FACTS)
    tables = {section.title: {} for section in suite.SECTIONS} | {"Other": {}}
    for key in keys:
        title, metric, heading = "Other", Metric(key), key
        for section in suite.SECTIONS:
            if labels := section.find(key):
                title, metric, heading = section.title, labels[0], f"{labels[0].heading}, {labels[1].label}"
                break
        tables[title][heading] = _marked([run.metrics.get(key) for run in runs], metric.better)
    return tables


def _marked(values: Sequence[Any], better: str) -> list[str]:
    """Return numbers as text, with a mark at the best one if others differ from it."""
    numbers = [value for value in values if isinstance(value, int | float)]
    best = {"higher": max, "lower": min}[better](numbers) if better and len({*numbers}) > 1 else None
    is_best = lambda value: best is not None and value == best
    return [f"{number(value)}{BEST if is_best(value) else ' ' * len(BEST) * (best is not None)}" for value in values]


def _shown(value: Any) -> str:
    return "-" if value is None else value if value and isinstance(value, str) else repr(value)


def _run(name: str, folder: Path, config: dict[str, Any]) -> Run:
    evaluations = [path.parent for path in folder.glob("evaluation/[0-9]*/metrics.json")]
    step = lambda path: int(re.match("[0-9]+", path.name)[0])
    plain = [path for path in evaluations if re.fullmatch("[0-9]+", path.name)]  # not of another sampler or seed
    newest = max(plain or evaluations, key=step, default=None)
    metrics = {}
    if newest is None:
        _log.warning("%s: found no evaluation, expected metrics of --mode=evaluate", storage.shown(folder))
    else:
        try:
            metrics = workdirs.read_json(newest / "metrics.json")
        except ValueError as error:
            path = storage.shown(newest / "metrics.json")
            _log.warning("%s: found no evaluation (%s), expected that of --mode=evaluate", path, first_line(error))
    pictures = sorted(folder.glob("samples/samples_*.png"))  # drawn in training
    if newest and (newest / "samples.png").is_file():
        pictures.append(newest / "samples.png")
    return Run(name, config, metrics, curves.read(folder), pictures[-1] if pictures else None)
