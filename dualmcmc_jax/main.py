"""Trains a model of images, draws from it, or measures it.

  dualmcmc --config=digits                                      train; the same command again resumes
  dualmcmc --config=images --config.data.source=images:FOLDER   train on a folder or zip file of images
  dualmcmc --config=digits --mode=sample --num_samples=400      write samples.png and samples.npz
  dualmcmc --config=digits --mode=evaluate                      print every number, write report.html

flags:
  --config=NAME or FILE         digits, toy2d, cifar10, celeba64, images; or a Python file like configs/digits.py
  --config.SECTION.FIELD=VALUE  sets one field; configs/default.py lists them all with their meaning
  --workdir=DIR                 folder of the run; default: runs/NAME
  --mode=train, sample, evaluate  default: train
  --step=N                      the checkpoint to sample or evaluate; default: the newest
  --num_samples=N               samples to draw; default: 100 (--config.evaluation.num_samples: to evaluate)
  --seed=S                      of the samples; default: 0
  --inception_weights=FILE      pt_inception-2015-12-05-6726825d.pth, for FID, KID and Inception Score
  --out=DIR                     where it goes; default: WORKDIR/samples or WORKDIR/evaluation/STEP
  --coordinator_address=HOST:PORT --num_processes=N --process_id=I
                                makes this process number I, from 0, of N that run the same command
  --debug                       show the traceback of an error

From a checkout, `python -m dualmcmc_jax.main` is the same as `dualmcmc`.
"""

import os
import re
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from dualmcmc_jax.configs import validation

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config, a Python file.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "sample", "evaluate"], "What to do.")
_STEP = flags.DEFINE_integer("step", None, "The checkpoint; default: the newest.", lower_bound=0)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 100, "Samples to draw.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0)
_INCEPTION_WEIGHTS = flags.DEFINE_string("inception_weights", None, "Weights of the Inception network of 2015.")
_OUT = flags.DEFINE_string("out", None, "Folder of the samples or the evaluation.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Processes of the run.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Number of this process.", lower_bound=0)
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def cli() -> None:
    """The console command: what is wrong with flags or input is said in one line, exit code 1."""
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    try:
        app.run(main, flags_parser=_parse)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"error: {error}")


def main(_argv) -> None:
    """Runs the chosen mode."""
    logging.set_verbosity(logging.FATAL)  # Orbax and TFDS warn of what is meant, and log what they raise as well
    config = _CONFIG.value
    validation.check(config)
    _check_flags()
    if config.train.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    if config.train.compute_dtype == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)
    if _NUM_PROCESSES.value > 1:
        from dualmcmc_jax.training import processes

        processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    run = {"train": train, "sample": sample, "evaluate": evaluate}[_MODE.value]
    run(config, Path(_WORKDIR.value or Path("runs") / name))


def train(config, workdir: Path) -> None:
    """Trains, with pictures now and then, and a light evaluation if evaluation.every asks for one."""
    import jax

    from dualmcmc_jax import models
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import evaluate, pictures
    from dualmcmc_jax.training import loop, signals

    models.build(config)  # says what does not fit before data are fetched
    dataset = sources.load(config.data)
    draw, measure = lambda step, state: {}, lambda state: {}
    if jax.process_index() == 0:
        draw = pictures.drawer(config, dataset.test, workdir / "samples")
        if config.evaluation.every:
            light = evaluate.light(config, evaluate.inputs(config, dataset, _weights()))
            measure = lambda state: light(state.average)
    try:
        loop.train(config, workdir, dataset=dataset, draw=draw, measure=measure)
    except signals.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(signals.EXIT_CODE)
    print(f"done: {workdir}")


def sample(config, workdir: Path) -> None:
    """Draws from a checkpoint into samples.npz and samples.png."""
    import numpy as np

    from dualmcmc_jax.evaluation import devices, figures, samples
    from dualmcmc_jax.training import checkpoints

    state = checkpoints.restore(config, workdir, step=_STEP.value)
    draw = samples.sampler(config)
    drawn = devices.collect(draw(state.average, num_samples=_NUM_SAMPLES.value, seed=_SEED.value))
    out = Path(_OUT.value or workdir / "samples")
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "samples.npz", **drawn)
    figures.save(out / "samples.png", figures.samples(drawn))
    print(f"step {int(state.step)}: wrote {out / 'samples.npz'} and {out / 'samples.png'}")


def evaluate(config, workdir: Path) -> None:
    """Measures a checkpoint: a table, metrics.json, figures and report.html."""
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import evaluate, figures, report
    from dualmcmc_jax.training import checkpoints, workdirs

    state = checkpoints.restore(config, workdir, step=_STEP.value)
    given = evaluate.inputs(config, sources.load(config.data), _weights())
    step = int(state.step)
    found = evaluate.evaluate(config, given, state.average, step=step, seed=_SEED.value)
    metrics = found.metrics
    print(report.text(metrics))
    sampler = f"-{config.evaluation.x_chain[0]}-steps" if config.evaluation.x_chain else ""
    out = Path(_OUT.value or workdir / "evaluation" / f"{step}{sampler}")
    out.mkdir(parents=True, exist_ok=True)
    workdirs.replace(out / "metrics.json", report.as_json(metrics))
    paths = {}
    for name, figure in evaluate.draw(config, given, state.average, found, workdir, seed=_SEED.value).items():
        paths[name] = out / f"{name}.png"
        figures.save(paths[name], figure)
    title = f"Evaluation of {workdir}"
    workdirs.replace(out / "report.html", report.page(title, metrics, paths, workdirs.listing(config)))
    print(f"wrote {out / 'report.html'} and {out / 'metrics.json'}")


def _check_flags() -> None:
    """Raises ValueError for a flag that the mode does not use, or an --out that is no folder."""
    users = {
        "num_samples": ("sample",),
        "seed": ("sample", "evaluate"),
        "step": ("sample", "evaluate"),
        "out": ("sample", "evaluate"),
        "inception_weights": ("train", "evaluate"),
        "num_processes": ("train",),
    }
    for name, modes in users.items():
        if flags.FLAGS[name].present and _MODE.value not in modes:
            raise ValueError(f"--{name}: found with --mode={_MODE.value}, expected --mode={' or '.join(modes)}")
    if _PROCESS_ID.value >= _NUM_PROCESSES.value:
        expected = f"0 to {_NUM_PROCESSES.value - 1}, with --num_processes={_NUM_PROCESSES.value}"
        raise ValueError(f"--process_id: found {_PROCESS_ID.value}, expected {expected}")
    if _NUM_PROCESSES.value > 1 and not re.fullmatch(r"[^:]+:\d+", _COORDINATOR.value or ""):
        raise ValueError(f"--coordinator_address: found {_COORDINATOR.value}, expected HOST:PORT of process 0")
    if _OUT.value and Path(_OUT.value).exists() and not Path(_OUT.value).is_dir():
        raise ValueError(f"--out: found a file {_OUT.value}, expected a folder")


def _weights() -> Path | None:
    return _INCEPTION_WEIGHTS.value and Path(_INCEPTION_WEIGHTS.value).expanduser()


def _named(argument: str) -> str:
    """--config=NAME as the path of the config of that name."""
    flag, _, value = argument.partition("=")
    if flag.lstrip("-") != "config" or Path(value).is_file():
        return argument
    folder = Path(validation.__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "validation"))
    if value not in names:
        raise ValueError(f"--config: found {value!r}, expected a Python file or one of {', '.join(names)}")
    return f"{flag}={folder / value}.py"


def _parse(argv: list[str]) -> list[str]:
    """flags.FLAGS(argv), with every way in which it can fail as a ValueError of one line."""
    try:
        rest = flags.FLAGS([_named(argument) for argument in argv])
    except SyntaxError as error:
        raise ValueError(f"--config: found {error.msg} in {error.filename}, line {error.lineno}") from error
    except (KeyError, AttributeError) as error:
        field = re.findall(r"\w+", str(error))[0]
        raise ValueError(f"--config: found no field {field!r}; configs/default.py lists them all") from error
    except (flags.Error, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if _CONFIG.value is None:
        raise ValueError("--config: found nothing, expected a config, as in --config=digits")
    if rest[1:]:
        raise ValueError(f"found {rest[1]!r}, expected flags alone, as in --config=digits")
    return rest


if __name__ == "__main__":
    cli()
