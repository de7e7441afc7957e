"""Train and evaluate every variant of a study with several seeds, and print one table.

  python -m dualmcmc_jax.study table5 --config=digits               the paper's Table 5, on digits
  python -m dualmcmc_jax.study table5 --config=toy2d --seeds=5      the same on 2-D toy data, with five seeds
  python -m dualmcmc_jax.study table5 --config=cifar10 --jobs=8     the same on CIFAR-10, using eight GPUs
  python -m dualmcmc_jax.study FILE.py --config=digits              a study that you define in a file, for example:

    from dualmcmc_jax.study import Study, beats, changed

    def get_study(config):
        variants = {f"{k} x-steps": changed(config, x_chain__num_steps=k) for k in (5, 50)}
        return Study(variants, (beats("50 x-steps", "5 x-steps"),))

flags:
  --config=NAME or FILE, --config.SECTION.FIELD=VALUE   settings shared by all variants, given as for training
  --seeds=N       number of runs of each variant; their seeds count up from train.seed of the config (default: 3)
  --jobs=N        number of runs at the same time; each uses one GPU or an equal share of the CPU cores (default: one
                  run per GPU, or 1 without GPUs)
  --seconds=S     train each variant for the number of updates that take S seconds, not counting compilation and
                  evaluation; the rate is measured first, so keep the machine otherwise idle (default: 0, which means
                  train.num_steps updates)
  --workdir=DIR   folder for all runs (default: runs/studies/STUDY-CONFIG, or with --seconds=30,
                  runs/studies/STUDY-CONFIG-30s)
  --inception_weights=FILE   weights-inception-2015-12-05-6726825d.pth, for FID; docs/evaluation.md has its address
  --quiet, --debug   as for training

Run the same command again to resume an interrupted study, or to print the table of a finished one. You can start the
command several times, on one machine or on several machines with a shared folder that supports file locks; the runs are
then divided between the commands.
"""

from dualmcmc_jax.cli import interrupts

if __name__ == "__main__":
    interrupts.end_quietly()

import runpy
import sys
import traceback
from pathlib import Path

import filelock
from absl import flags, logging

from dualmcmc_jax import config_check
from dualmcmc_jax.cli import command_line, completion, terminal
from dualmcmc_jax.runtime import signals
from dualmcmc_jax.study import jobs, runs, tables
from dualmcmc_jax.study.definitions import Study, changed

_SEEDS = flags.DEFINE_integer("seeds", 3, "Number of runs of each variant.", lower_bound=1)
_JOBS = flags.DEFINE_integer("jobs", None, "Number of runs at the same time.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 0.0, "Seconds of training; 0: use train.num_steps.", lower_bound=0.0)


def main(argv) -> None:
    """Run the missing runs of a study, and print the table."""
    logging.set_verbosity(logging.ERROR)
    command_line.refuse_others("seeds", "jobs", "seconds", "workdir", "inception_weights")
    path, config = _path(argv[1]), command_line.CONFIG.value
    study = _load(path, config)
    workdir = _workdir(path)
    weights = command_line.inception_weights() and command_line.INCEPTION_WEIGHTS.value  # stored as it was given
    seeds = range(config.train.seed, config.train.seed + _SEEDS.value)
    config_check.check(changed(config, train__seed=seeds[-1]))
    num_gpus = len(jobs.gpus())
    if num_gpus and (_JOBS.value or 1) > num_gpus:
        raise ValueError(f"--jobs: found {_JOBS.value}, expected at most {num_gpus}, the number of GPUs")
    settings = runs.Settings(
        workdir=workdir,
        seeds=seeds,
        num_jobs=_JOBS.value or max(1, num_gpus),
        seconds=_SECONDS.value,
        flags=(f"--inception_weights={weights}",) if weights else (),
    )
    try:
        results = runs.run(study.variants, settings)
    except jobs.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(signals.EXIT_CODE)
    with filelock.FileLock(workdir / ".study"):  # another command may finish at the same time
        tables.write(workdir, study, results)
    terminal.show(tables.text(study, results))
    terminal.show(f"wrote table.txt, results.json and figure.png to {workdir}")
    all_results = [result for of_variant in results.values() for result in of_variant]
    if failed := sum(result.failed for result in all_results):
        raise ValueError(f"{failed} of {len(all_results)} runs failed; run the same command again to retry them")


def _path(name: str) -> Path:
    """Return the file of a study, which is given by its name in configs/studies or by its path."""
    folder = completion.CONFIGS / "studies"
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    path = folder / f"{name}.py" if name in names else Path(name)
    if name == "rivals":
        raise ValueError("study: found 'rivals', expected its new name, baselines")
    if not path.is_file():
        raise ValueError(f"study: found {name!r}, expected a Python file or one of {', '.join(names)}")
    return path


def _load(path: Path, config) -> Study:
    """Return the study that a file defines. Raise ValueError if the file or the study is invalid."""
    try:
        study = runpy.run_path(str(path)).get("get_study", lambda _: None)(config)
    except ValueError as error:
        raise ValueError(f"study: {error}") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"study: found {type(error).__name__} in {path}{line}: {error}") from error
    if not isinstance(study, Study):
        raise ValueError(f"study: found no study in {path}, expected a get_study(config) that returns a Study")
    slugs = [runs.slug(name) for name in study.variants]
    if not all(slugs) or len(set(slugs)) < len(slugs):
        expected = "names that differ in their letters or digits"
        raise ValueError(f"study: found variants {', '.join(study.variants)}, expected {expected}")
    for claim in study.claims:
        for _, name, metric in claim.terms:
            known = ("quality", "score", "reconstruction")
            if name not in study.variants or not (metric in known or "/" in metric):
                metrics = f"{', '.join(known)}, or a name with a /"
                expected = f"a variant ({', '.join(study.variants)}) and a metric ({metrics})"
                raise ValueError(
                    f"study: found variant {name!r} and metric {metric!r} in claim {claim.text!r}, expected {expected}"
                )
    for name, variant in study.variants.items():
        try:
            config_check.check(variant)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return study


def _workdir(path: Path) -> Path:
    """Return the folder for all runs. Its default name contains the study, the config and --seconds."""
    seconds = f"-{_SECONDS.value:g}s" if _SECONDS.value else ""
    workdir = command_line.WORKDIR.value or f"runs/studies/{path.stem}-{command_line.config_name()}{seconds}"
    if "://" in workdir or (Path(workdir).exists() and not Path(workdir).is_dir()):
        raise ValueError(f"--workdir: found {workdir}, expected a folder, not a file or URL")
    return Path(workdir)


def cli() -> None:
    """Run the console command `dualmcmc-study`."""
    command_line.run(main, help=__doc__, argument="study")


if __name__ == "__main__":
    cli()
