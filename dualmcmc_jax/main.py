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
import sys
from pathlib import Path

from absl import app, logging

from dualmcmc_jax import command_line
from dualmcmc_jax.configs import validation


def cli() -> None:
    """The console command: what is wrong with flags or input is said in one line, exit code 1."""
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    if "--debug" not in sys.argv:
        sys.unraisablehook = lambda _: None  # what callbacks of a failed save would print after its error
    try:
        app.run(main, flags_parser=command_line.parse)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {command_line.one_line(error)}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)  # threads of a save that failed would wait for twenty minutes


def main(_argv) -> None:
    """Runs the chosen mode."""
    logging.set_verbosity(logging.FATAL)  # Orbax and TFDS warn of what is meant, and log what they raise as well
    config = command_line.CONFIG.value
    validation.check(config)
    command_line.check()
    _start_jax(config)
    run = {"train": train, "sample": sample, "evaluate": evaluate}[command_line.MODE.value]
    run(config, Path(command_line.WORKDIR.value or Path("runs") / command_line.config_name()))


def _start_jax(config) -> None:
    """What must be set before JAX looks for devices."""
    if config.train.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    if config.train.compute_dtype == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)
    if command_line.NUM_PROCESSES.value > 1:
        from dualmcmc_jax.training import processes

        processes.join(command_line.COORDINATOR.value, command_line.NUM_PROCESSES.value, command_line.PROCESS_ID.value)


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

    state = checkpoints.restore(config, workdir, step=command_line.STEP.value)
    draw = samples.sampler(config)
    drawn = devices.collect(
        draw(state.average, num_samples=command_line.NUM_SAMPLES.value, seed=command_line.SEED.value)
    )
    out = Path(command_line.OUT.value or workdir / "samples")
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "samples.npz", **drawn)
    figures.save(out / "samples.png", figures.samples(drawn))
    print(f"step {int(state.step)}: wrote {out / 'samples.npz'} and {out / 'samples.png'}")


def evaluate(config, workdir: Path) -> None:
    """Measures a checkpoint: a table, metrics.json, figures and report.html."""
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import evaluate, figures, report
    from dualmcmc_jax.training import checkpoints, workdirs

    state = checkpoints.restore(config, workdir, step=command_line.STEP.value)
    given = evaluate.inputs(config, sources.load(config.data), _weights())
    step, seed = int(state.step), command_line.SEED.value
    found = evaluate.evaluate(config, given, state.average, step=step, seed=seed)
    metrics = found.metrics
    print(report.text(metrics))
    sampler = f"-{config.evaluation.x_chain[0]}-steps" if config.evaluation.x_chain else ""
    out = Path(command_line.OUT.value or workdir / "evaluation" / f"{step}{sampler}")
    out.mkdir(parents=True, exist_ok=True)
    workdirs.replace(out / "metrics.json", report.as_json(metrics))
    paths = {}
    for name, figure in evaluate.draw(
        config, given, state.average, found, workdir, seed=command_line.SEED.value
    ).items():
        paths[name] = out / f"{name}.png"
        figures.save(paths[name], figure)
    title = f"Evaluation of {workdir}"
    workdirs.replace(out / "report.html", report.page(title, metrics, paths, workdirs.listing(config)))
    print(f"wrote {out / 'report.html'} and {out / 'metrics.json'}")


def _weights() -> Path | None:
    return command_line.INCEPTION_WEIGHTS.value and Path(command_line.INCEPTION_WEIGHTS.value).expanduser()


if __name__ == "__main__":
    cli()
