"""Trains and evaluates every variant of a study with several seeds, and prints one table.

  python -m dualmcmc_jax.study table5 --config=digits               the paper's Table 5, on digits
  python -m dualmcmc_jax.study table5 --config=toy2d --seeds=5      in the plane
  python -m dualmcmc_jax.study table5 --config=cifar10 --jobs=8     on CIFAR-10, eight GPUs at work
  python -m dualmcmc_jax.study FILE.py --config=digits              a study of your own, like those in configs/studies

flags:
  --config=NAME or FILE, --config.SECTION.FIELD=VALUE   what all variants have in common, as for training
  --seeds=N       runs of each variant, with train.seed from that of the config on; default: 3
  --jobs=N        runs at a time, each with its share of the cores or a GPU of its own; default: one a GPU, or 1
  --seconds=S     trains each variant for as many updates as S seconds allow, compilation aside; 0: as the config says
  --workdir=DIR   folder of all runs; default: runs/studies/STUDY-CONFIG
  --inception_weights=FILE   for FID
  --quiet, --debug   as for training

The same command again goes on where it was stopped, and prints the table if there is nothing left to do. Started
several times, on one machine or on several with a common folder, it shares the runs out among them.
"""

import runpy
import sys
from pathlib import Path

from absl import flags, logging

from dualmcmc_jax import command_line, completion
from dualmcmc_jax.configs import validation
from dualmcmc_jax.study import jobs, runs, tables
from dualmcmc_jax.training import signals

_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each variant.", lower_bound=1)
_JOBS = flags.DEFINE_integer("jobs", None, "Runs at a time.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 0.0, "Of training; 0: as the config says.", lower_bound=0.0)


def main(argv) -> None:
    """Runs what is left to run, and prints the table."""
    logging.set_verbosity(logging.ERROR)
    command_line.refuse_others("seeds", "jobs", "seconds", "workdir", "inception_weights")
    path = _path(argv[1])
    config = command_line.CONFIG.value
    study = _load(path, config)
    for name, variant in study.variants.items():
        try:
            validation.check(variant)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    workdir = Path(command_line.WORKDIR.value or f"runs/studies/{path.stem}-{command_line.config_name()}")
    weights = command_line.INCEPTION_WEIGHTS.value
    if weights and not Path(weights).is_file():
        raise ValueError(f"--inception_weights: found no file {weights}, expected Inception's weights")
    settings = runs.Settings(
        workdir=workdir,
        seeds=range(config.train.seed, config.train.seed + _SEEDS.value),
        num_jobs=_JOBS.value or max(1, len(jobs.gpus())),
        seconds=_SECONDS.value,
        flags=(f"--inception_weights={weights}",) if weights else (),
    )
    try:
        results = runs.run(study.variants, settings)
    except jobs.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(signals.EXIT_CODE)
    print(tables.text(study, results))
    tables.write(workdir, study, results)
    print(f"wrote table.txt, results.json and figure.png to {workdir}")
    if failed := sum(bool(result.problem) for found in results.values() for result in found):
        raise ValueError(f"found {failed} runs that failed, expected none; the same command tries them again")


def _path(name: str) -> Path:
    folder = Path(completion.__file__).parent / "configs" / "studies"
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    path = folder / f"{name}.py" if name in names else Path(name)
    if not path.is_file():
        raise ValueError(f"study: found {name!r}, expected a Python file or one of {', '.join(names)}")
    return path


def _load(path: Path, config):
    module = runpy.run_path(str(path))
    if "get_study" not in module:
        raise ValueError(f"study: found no get_study() in {path}, expected a file with one")
    return module["get_study"](config)


if __name__ == "__main__":
    command_line.run(main, help=__doc__, argument="study")
