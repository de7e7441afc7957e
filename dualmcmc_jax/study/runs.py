"""The runs of a study: each a folder, a training and an evaluation in processes of their own."""

import json
import re
import shutil
import statistics
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict
from tqdm import tqdm

from dualmcmc_jax import config_check
from dualmcmc_jax.runtime.workdirs import replace
from dualmcmc_jax.study import jobs
from dualmcmc_jax.study.definitions import changed

PILOT_STEPS, PILOT_EVERY = 60, 10


class Settings(NamedTuple):
    """Attributes:
    workdir: of the study, with a folder for each run.
    seeds: of each variant's runs.
    num_jobs: runs at a time.
    seconds: of each training, compilation aside; 0: train.num_steps of the config.
    flags: more flags of the evaluation.
    """

    workdir: Path
    seeds: range
    num_jobs: int
    seconds: float
    flags: tuple[str, ...]


class Result(NamedTuple):
    """What became of a run: its metrics, or why there are none."""

    seed: int
    metrics: dict[str, float]
    problem: str = ""


def run(variants: dict[str, ConfigDict], settings: Settings) -> dict[str, list[Result]]:
    """Does what is left of a study, and returns all its results by variant.

    Runs that another command is at are left to it; only when there are no others are they waited for.

    Raises:
      Stopped: by SIGTERM, SIGINT or SIGHUP, which its processes were told.
    """
    todo, results = [(name, seed) for seed in settings.seeds for name in variants], {}
    with jobs.Jobs(settings.num_jobs) as places, tqdm(total=len(todo), unit="run") as bar:
        if settings.seconds:
            bar.set_description("measuring rates")
            lengths = places.map(lambda name: _for_seconds(places, settings, name, variants[name]), variants)
            variants = dict(zip(variants, lengths, strict=True))
            bar.set_description()
        _check(variants, settings)

        def one(item, wait):
            name, seed = item
            config, folder = variants[name], settings.workdir / slug(name) / str(seed)
            if isinstance(config, str):
                found = Result(seed, {}, config)
            else:
                config = changed(config, train__seed=seed)
                found = _train_and_evaluate(places, folder, config, settings.flags, wait=wait)
            if found:
                results[item] = found
                bar.set_postfix_str(f"{name}, seed {seed}", refresh=False)
                bar.update(1)

        places.map(lambda item: one(item, False), todo)
        places.map(lambda item: one(item, True), [item for item in todo if item not in results])
    return {name: [results[of, seed] for of, seed in todo if of == name] for name in variants}


def _check(variants: dict[str, ConfigDict | str], settings: Settings) -> None:
    """Raises ValueError for the first run that was begun with another config, or is longer already than asked for."""
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
    """The flags of `dualmcmc_jax.main` that make this config."""
    values = config_check.fields(config)
    return ["--config=default", *(f"--config.{name}={value}" for name, value in values.items())]


def slug(name: str) -> str:
    """The folder of a variant."""
    return re.sub(r"\W+", "-", name).strip("-").lower()


def _train_and_evaluate(
    places: jobs.Jobs, workdir: Path, config: ConfigDict, more: tuple[str, ...], *, wait: bool
) -> Result | None:
    """The result of one run; None if another process has it and should not be waited for.

    A stored result is reused if it was made with the same flags.
    """
    seed, num_steps = config.train.seed, config.train.num_steps
    config.evaluation.every, config.log.images_every = 0, num_steps
    flags, out = flags_of(config), workdir / "evaluation" / str(num_steps)
    evaluation = ["--mode=evaluate", f"--step={num_steps}", f"--seed={seed}", *more]
    done, place = out / "study.json", f"--workdir={workdir}"
    with places.claim(workdir, wait=wait) as lock:
        if not lock:
            return None
        if not done.exists() or json.loads(done.read_text()) != [*flags, *evaluation]:
            problem = places.main(workdir, lock, *flags, place) or places.main(
                workdir, lock, *flags, place, *evaluation, f"--out={out}"
            )
            if problem:
                return Result(seed, {}, problem)
            replace(done, json.dumps([*flags, *evaluation]))
    metrics = json.loads((out / "metrics.json").read_text())
    return Result(seed, metrics | {"num_steps": num_steps, "seconds": num_steps / _rate(workdir)})


def _for_seconds(places: jobs.Jobs, settings: Settings, name: str, config: ConfigDict) -> ConfigDict | str:
    """A config of as many updates as settings.seconds allow, or why its rate, measured once and kept, cannot be.

    Its learning rates have by the last epoch fallen as far as those of the config.
    """
    folder = settings.workdir / slug(name)
    pilot = changed(config, train__num_steps=PILOT_STEPS, log__every=PILOT_EVERY, log__images_every=10**9)
    pilot.evaluation.every = 0
    key = [*flags_of(pilot), f"--jobs={settings.num_jobs}"]
    with places.claim(folder) as lock:
        kept, workdir = folder / "rate.json", folder / "pilot"
        found = json.loads(kept.read_text()) if kept.exists() else {}
        if found.get("of") != key:
            shutil.rmtree(workdir, ignore_errors=True)
            workdir.mkdir()
            if problem := places.main(workdir, lock, *key[:-1], f"--workdir={workdir}"):
                return problem
            found = {"of": key, "steps_per_second": _rate(workdir)}
            replace(kept, json.dumps(found))
    num_steps = max(1, round(settings.seconds * found["steps_per_second"]))
    return changed(
        config,
        train__num_steps=num_steps,
        optimizer__decay=config.optimizer.decay ** (config.train.num_steps / num_steps),
        checkpoint__every=max(1, num_steps // 5),
        log__every=max(1, num_steps // 50),
    )


def _rate(workdir: Path) -> float:
    """The median of a run's updates a second, over its rows of metrics but the first, in which it was compiled."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = [row["steps_per_second"] for row in rows if "steps_per_second" in row]
    return statistics.median(rates[1:] or rates)
