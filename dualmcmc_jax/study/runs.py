"""The runs of a study: each a folder, a training and an evaluation in processes of their own."""

import json
import re
import statistics
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict
from tqdm import tqdm

from dualmcmc_jax.configs import validation
from dualmcmc_jax.study import jobs
from dualmcmc_jax.training.workdirs import replace

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

    Raises:
      Stopped: by SIGTERM or SIGINT, which its processes were told.
    """
    with jobs.Jobs(settings.num_jobs) as places:
        if settings.seconds:
            rates = places.map(lambda name: _pilot(places, settings.workdir / _slug(name), variants[name]), variants)
            variants = {
                name: _for_seconds(config, settings.seconds, rate)
                for (name, config), rate in zip(variants.items(), rates, strict=True)
            }
        todo = [(name, seed) for seed in settings.seeds for name in variants]
        with tqdm(total=len(todo), unit="run") as bar:

            def one(item):
                name, seed = item
                config = variants[name].copy_and_resolve_references()
                config.train.seed = seed
                found = _train_and_evaluate(places, settings.workdir / _slug(name) / str(seed), config, settings.flags)
                bar.set_postfix_str(f"{name}, seed {seed}", refresh=False)
                bar.update(1)
                return found

            found = places.map(one, todo)
    return {name: [result for (of, _), result in zip(todo, found, strict=True) if of == name] for name in variants}


def flags_of(config: ConfigDict) -> list[str]:
    """The flags of `dualmcmc_jax.main` that make this config."""
    values = validation.fields(config)
    return ["--config=default", *(f"--config.{name}={value}" for name, value in values)]


def _train_and_evaluate(places: jobs.Jobs, workdir: Path, config: ConfigDict, more: tuple[str, ...]) -> Result:
    """The result of one run; waits while another process has it."""
    seed, num_steps = config.train.seed, config.train.num_steps
    out = workdir / "evaluation" / str(num_steps)
    with places.claim(workdir):
        config.evaluation.every, config.log.images_every = 0, num_steps
        flags = [*flags_of(config), f"--workdir={workdir}"]
        if not (out / "metrics.json").exists():
            problem = places.main(workdir, *flags) or places.main(
                workdir, *flags, "--mode=evaluate", f"--seed={seed}", f"--out={out}", *more
            )
            if problem:
                return Result(seed, {}, problem)
    metrics = json.loads((out / "metrics.json").read_text())
    return Result(seed, metrics | {"update_seconds": 1 / _rate(workdir), "num_steps": num_steps})


def _pilot(places: jobs.Jobs, folder: Path, config: ConfigDict) -> float:
    """Updates a second of a config, measured once and kept in its folder."""
    kept = folder / "steps_per_second"
    with places.claim(folder / "pilot"):
        if not kept.exists():
            config = config.copy_and_resolve_references()
            config.train.num_steps = PILOT_STEPS
            config.log.update(every=PILOT_EVERY, images_every=10**9)
            config.evaluation.every = 0
            if problem := places.main(folder / "pilot", *flags_of(config), f"--workdir={folder / 'pilot'}"):
                raise ValueError(f"{folder}: found {problem}, expected a variant that can be trained")
            replace(kept, f"{_rate(folder / 'pilot')}\n")
    return float(kept.read_text())


def _for_seconds(config: ConfigDict, seconds: float, rate: float) -> ConfigDict:
    """As many updates as so many seconds allow; by their end the learning rates fall as far as by the config's."""
    config = config.copy_and_resolve_references()
    num_steps = max(1, round(seconds * rate))
    config.optimizer.decay **= config.train.num_steps / num_steps
    config.train.num_steps = num_steps
    config.checkpoint.every = max(1, num_steps // 5)
    config.log.every = max(1, num_steps // 50)
    return config


def _rate(workdir: Path) -> float:
    """The median of a run's updates a second, over its rows of metrics but the first, in which it was compiled."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = [row["steps_per_second"] for row in rows if "steps_per_second" in row]
    return statistics.median(rates[1:] or rates)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()
