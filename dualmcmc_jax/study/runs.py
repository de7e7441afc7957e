"""The runs of a study. Each run has a folder, and is trained and evaluated in separate processes."""

import json
import logging
import math
import re
import shutil
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from tqdm import tqdm

from dualmcmc_jax import config_check
from dualmcmc_jax.runtime import metric_writer
from dualmcmc_jax.runtime.workdirs import replace
from dualmcmc_jax.study import jobs
from dualmcmc_jax.study.definitions import changed

_log = logging.getLogger(__name__)

REACHED_END = "study/reached_end"
"""Name of the metric that says whether a run reached its last update (1), or diverged before (0)."""

PILOT_STEPS, PILOT_EVERY = 60, 10
"""Number of updates of a pilot run, and number of updates between its logs. The run measures updates per second."""


class Settings(NamedTuple):
    """Settings for the runs of a study.

    Attributes:
      workdir: folder of the study, which contains a folder for each run.
      seeds: seeds of the runs of each variant.
      num_jobs: number of runs at the same time.
      seconds: training time of each run without compilation; 0: train.num_steps updates.
      flags: additional flags of the evaluation.
    """

    workdir: Path
    seeds: range
    num_jobs: int
    seconds: float
    flags: tuple[str, ...]


class Result(NamedTuple):
    """The result of one run.

    Attributes:
      seed: seed of the run.
      metrics: metrics by name. A run that diverged has only `REACHED_END` and "diverged_at", the update after which
        its first divergence was noticed. A run that failed for other reasons has none.
      problem: reason for the failure; empty if the run succeeded.
    """

    seed: int
    metrics: dict[str, float]
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Whether the run has no result. That a run diverges is a result: it would diverge again."""
        return bool(self.problem) and REACHED_END not in self.metrics


def run(variants: dict[str, ConfigDict], settings: Settings) -> dict[str, list[Result]]:
    """Train and evaluate the runs of a study that have no result yet.

    Runs that another command is working on are skipped at first. When no other run is left, this function waits for
    the skipped runs.

    Args:
      variants: configs by name.
      settings: settings of the study.

    Returns:
      The results of all runs by variant.

    Raises:
      Stopped: SIGTERM, SIGINT, SIGHUP or SIGUSR1 arrived. The processes of the runs have been told to stop.
      ValueError: a stored run has another config, or is already longer than the config asks for.
    """
    todo, results = [(name, seed) for seed in settings.seeds for name in variants], {}
    with jobs.Jobs(settings.num_jobs) as workers, tqdm(total=len(todo), unit="run") as bar:
        if settings.seconds:
            bar.set_description("measuring rates")
            variants = _for_seconds(workers, variants, settings)
            bar.set_description()
        _check(variants, settings)

        def run_one(item, wait):
            name, seed = item
            config, folder = variants[name], settings.workdir / slug(name) / str(seed)
            if isinstance(config, str):
                result = Result(seed, {}, config)
            else:
                config = changed(config, train__seed=seed)
                result = _train_and_evaluate(workers, folder, config, settings.flags, wait=wait)
            if result:
                results[item] = result
                bar.set_postfix_str(f"{name}, seed {seed}", refresh=False)
                bar.update(1)

        workers.map(lambda item: run_one(item, False), todo)
        workers.map(lambda item: run_one(item, True), [item for item in todo if item not in results])
    return {name: [results[variant, seed] for variant, seed in todo if variant == name] for name in variants}


def _check(variants: dict[str, ConfigDict | str], settings: Settings) -> None:
    """Raise ValueError if a stored run has another config, or is already longer than the config asks for."""
    for name, config in variants.items():
        for seed in () if isinstance(config, str) else settings.seeds:
            workdir = settings.workdir / slug(name) / str(seed)
            if (workdir / "config.json").exists():
                config_check.check_run(workdir, changed(config, train__seed=seed))
                stored = config_check.stored_config(workdir).train.num_steps
                if stored > config.train.num_steps:
                    found = f"a run of {stored} updates in {workdir}, expected at most {config.train.num_steps}"
                    raise ValueError(f"train.num_steps: found {found}; name another --workdir")


def flags_of(config: ConfigDict) -> list[str]:
    """Return the flags with which `dualmcmc_jax.main` builds this config."""
    values = config_check.fields(config)
    return ["--config=default", *(f"--config.{name}={value}" for name, value in values.items())]


def slug(name: str) -> str:
    """Return the name of a variant's folder."""
    return re.sub(r"\W+", "-", name).strip("-").lower()


def _train_and_evaluate(
    workers: jobs.Jobs, workdir: Path, config: ConfigDict, evaluation_flags: tuple[str, ...], *, wait: bool
) -> Result | None:
    """Return the result of one run. A stored result is reused if it was made with the same flags.

    If another process has locked the run, wait until the run is free; if `wait` is False, return None.
    """
    seed, num_steps = config.train.seed, config.train.num_steps
    config.evaluation.every, config.log.images_every = 0, num_steps
    flags, out, diverged = flags_of(config), workdir / "evaluation" / str(num_steps), workdir / "diverged.json"
    evaluation = ["--mode=evaluate", f"--step={num_steps}", f"--seed={seed}", *evaluation_flags]
    record, workdir_flag = out / "study.json", f"--workdir={workdir}"
    with workers.claim(workdir, wait=wait) as lock:
        if not lock:
            return None
        before = _stored(diverged, dict) or {}
        if before.get("flags") == flags:
            return Result(seed, before.get("metrics", {}), before.get("problem", ""))
        if _stored(record, list) != [*flags, *evaluation] or _stored(out / "metrics.json", dict) is None:
            problem = workers.main(workdir, lock, *flags, workdir_flag) or workers.main(
                workdir, lock, *flags, workdir_flag, *evaluation, f"--out={out}"
            )
            if problem:
                metrics = {REACHED_END: 0.0} | _first_divergence(workdir, problem)
                if "diverged_at" not in metrics:
                    return Result(seed, {}, problem)
                replace(diverged, json.dumps({"flags": flags, "metrics": metrics, "problem": problem}))
                return Result(seed, metrics, problem)
            replace(record, json.dumps([*flags, *evaluation]))
        metrics = _stored(out / "metrics.json", dict) or {}
    measured = {"num_steps": num_steps, "seconds": num_steps / _rate(workdir), REACHED_END: 1.0}
    return Result(seed, metrics | measured | _first_divergence(workdir, ""))


def _first_divergence(workdir: Path, problem: str) -> dict[str, float]:
    """Return {"diverged_at": update} for the first divergence of a run, or {} if it never diverged.

    Args:
      workdir: the folder of the run, whose metrics have a row for each rollback.
      problem: the message of a run that ended early.
    """
    steps = [row["diverged_at"] for row in metric_writer.rows(workdir) if "diverged_at" in row]
    steps += map(int, re.findall(r"step (\d+): .*; training has diverged", problem))
    return {"diverged_at": steps[0]} if steps else {}


def _for_seconds(
    workers: jobs.Jobs, variants: dict[str, ConfigDict], settings: Settings
) -> dict[str, ConfigDict | str]:
    """Return configs that train for settings.seconds, or the reasons why pilot runs failed.

    Variants that differ only in their data have the same rate, which the first of them measures. The decay of the
    learning rates is adjusted, so that their final values are those of the original config.
    """
    pilots, pilot_of = {}, {}
    for name, config in variants.items():
        work = tuple(flag for flag in flags_of(config) if not flag.startswith("--config.data.source="))
        pilot_of[name] = pilots.setdefault(work, name)
    measured = workers.map(lambda name: _pilot(workers, settings, name, variants[name]), pilots.values())
    rates, for_seconds = dict(zip(pilots.values(), measured, strict=True)), {}
    for name, config in variants.items():
        rate = rates[pilot_of[name]]
        if isinstance(rate, str):
            for_seconds[name] = rate
            continue
        num_steps = max(1, round(settings.seconds * rate))
        for_seconds[name] = changed(
            config,
            train__num_steps=num_steps,
            optimizer__decay=config.optimizer.decay ** (config.train.num_steps / num_steps),
            checkpoint__every=max(1, num_steps // 5),
            log__every=max(1, num_steps // 50),
        )
    return for_seconds


def _pilot(workers: jobs.Jobs, settings: Settings, name: str, config: ConfigDict) -> float | str:
    """Return the updates per second of a variant, or the reason why its pilot run failed.

    The rate is measured once, and stored.
    """
    folder = settings.workdir / slug(name)
    pilot = changed(config, train__num_steps=PILOT_STEPS, log__every=PILOT_EVERY, log__images_every=10**9)
    pilot.evaluation.every = 0
    key = [*flags_of(pilot), f"--jobs={settings.num_jobs}"]
    with workers.claim(folder) as lock:
        file, workdir = folder / "rate.json", folder / "pilot"
        measured = _stored(file, dict) or {}
        if measured.get("of") != key or not _is_positive(measured.get("steps_per_second")):
            shutil.rmtree(workdir, ignore_errors=True)
            workdir.mkdir()
            if problem := workers.main(workdir, lock, *key[:-1], f"--workdir={workdir}"):
                return problem
            measured = {"of": key, "steps_per_second": _rate(workdir)}
            replace(file, json.dumps(measured))
    return measured["steps_per_second"]


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _stored(path: Path, kind: type) -> Any | None:
    """Return the content of a JSON file. Return None if the file does not exist or, with a warning, is damaged.

    Args:
      path: the file.
      kind: the type of an intact content, dict or list.
    """
    try:
        content = json.loads(path.read_text()) if path.exists() else None
        if not isinstance(content, kind | None):
            raise ValueError(f"a {type(content).__name__}")
        return content
    except (ValueError, OSError, RecursionError) as error:
        _log.warning("%s: found a damaged file (%s); its content is computed anew", path, error)
        return None


def _rate(workdir: Path) -> float:
    """Return the median of a run's updates per second, without the first row of metrics, which includes compilation."""
    rates = [row["steps_per_second"] for row in metric_writer.rows(workdir) if "steps_per_second" in row]
    return statistics.median(rates[1:] or rates)
