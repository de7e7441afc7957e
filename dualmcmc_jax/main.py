"""Trains a model of images, draws from it, or measures it.

  dualmcmc --config=digits                                      train; the same command again resumes
  dualmcmc --config=images --config.data.source=images:FOLDER   train on a folder or zip file of images
  dualmcmc --config=digits --mode=sample --num_samples=400      write samples.png and samples.npz
  dualmcmc --config=digits --mode=evaluate                      print every number, write report.html
  dualmcmc --config=digits --mode=export                        write model.safetensors and a model card
  dualmcmc --config=digits --mode=import --weights=FILE --workdir=DIR   go on from an exported model

flags:
  --config=NAME or FILE         digits, toy2d, linear_gaussian, cifar10, celeba64, images; or a Python file;
                                rivals/METHOD:NAME for another method on one of these, such as rivals/vae:digits
  --config.SECTION.FIELD=VALUE  sets one field; configs/default.py lists them all with their meaning
  --workdir=DIR                 folder of the run, or gs://BUCKET/FOLDER; default: runs/NAME
  --mode=train, sample, evaluate, export, import    default: train
  --step=N                      the checkpoint to sample, evaluate or export; default: the newest
  --num_samples=N               samples to draw; default: 100 (--config.evaluation.num_samples: to evaluate)
  --seed=S                      of the samples; default: 0
  --inception_weights=FILE      pt_inception-2015-12-05-6726825d.pth, for FID, KID and Inception Score
  --out=DIR                     where it goes; default: WORKDIR/samples, WORKDIR/evaluation/STEP, WORKDIR/export/STEP
  --weights=FILE                the model.safetensors to import
  --license=NAME                of the exported weights; default: apache-2.0
  --coordinator_address=HOST:PORT --num_processes=N --process_id=I
                                makes this process number I, from 0, of N that run the same command; on Cloud TPU,
                                under Slurm and Open MPI they find each other by themselves, unless --num_processes=1
  --quiet, --verbose            no progress and no notes; more notes
  --debug                       show the traceback of an error
  --completion                  print what completes all this: eval "$(dualmcmc --completion)"

From a checkout, `python -m dualmcmc_jax.main` is the same as `dualmcmc`.
"""

import sys
from pathlib import Path

from absl import logging

from dualmcmc_jax import config_check
from dualmcmc_jax.cli import command_line, terminal
from dualmcmc_jax.runtime import storage


def cli() -> None:
    """The console command."""
    command_line.run(main, help=__doc__)


def main(_argv) -> None:
    """Runs the chosen mode."""
    logging.set_verbosity(logging.FATAL)  # Orbax and TFDS warn of what is meant, and log what they raise as well
    config = command_line.CONFIG.value
    config_check.check(config)
    command_line.check()
    import jax

    from dualmcmc_jax.cli import startup
    from dualmcmc_jax.runtime import processes

    startup.start(config)
    if command_line.NUM_PROCESSES.value > 1:
        processes.join(command_line.COORDINATOR.value, command_line.NUM_PROCESSES.value, command_line.PROCESS_ID.value)
    elif not command_line.NUM_PROCESSES.present:
        processes.join_cluster(command_line.COORDINATOR.value)
        if command_line.COORDINATOR.value and not jax.distributed.is_initialized():
            raise ValueError("--num_processes: found none, and no cluster, expected one with --coordinator_address")
    if jax.process_index():
        terminal.start(quiet=True, verbose=False)
    if command_line.MODE.value != "train":
        processes.check_alone(command_line.MODE.value)
    run = {"train": train, "sample": sample, "evaluate": evaluate, "export": export, "import": import_}
    workdir = storage.open_workdir(command_line.WORKDIR.value or f"runs/{command_line.config_name()}")
    try:
        run[command_line.MODE.value](config, workdir)
    finally:
        storage.close(workdir, leads=jax.process_index() == 0)


def train(config, workdir: Path) -> None:
    """Trains, with pictures now and then, and a light evaluation if evaluation.every asks for one."""
    import jax

    from dualmcmc_jax import models
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import pictures, suite
    from dualmcmc_jax.runtime import signals
    from dualmcmc_jax.training import loop

    models.build(config)  # says what does not fit before data are fetched
    dataset = sources.load(config.data)
    draw, measure = lambda step, state: {}, lambda state: {}
    if jax.process_index() == 0:
        draw = pictures.drawer(config, dataset.test, workdir / "samples")
        if config.evaluation.every:
            light = suite.light(config, suite.inputs(config, dataset, _weights()))
            measure = lambda state: light(state.average)
    try:
        loop.train(config, workdir, dataset=dataset, draw=draw, measure=measure)
    except signals.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(signals.EXIT_CODE)
    if jax.process_index() == 0:
        print(f"done: {storage.shown(workdir)}")


def sample(config, workdir: Path) -> None:
    """Draws from a checkpoint into samples.npz and samples.png."""
    import numpy as np

    from dualmcmc_jax.evaluation import sampling
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures
    from dualmcmc_jax.runtime import checkpoints, parallel

    state = checkpoints.restore(config, workdir, step=command_line.STEP.value)
    model = Model.create(config, state.average, step=int(state.step))
    samples = parallel.collect(
        sampling.stream(model, num_samples=command_line.NUM_SAMPLES.value, seed=command_line.SEED.value)
    )
    out = _out(workdir / "samples")
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "samples.npz", **samples)
    figures.save(out / "samples.png", sampling.figure(samples))
    print(f"step {int(state.step)}: wrote samples.npz and samples.png to {storage.shown(out)}")


def evaluate(config, workdir: Path) -> None:
    """Measures a checkpoint: a table, metrics.json, figures and report.html."""
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import suite
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures, tables
    from dualmcmc_jax.runtime import checkpoints, workdirs

    state = checkpoints.restore(config, workdir, step=command_line.STEP.value)
    inputs = suite.inputs(config, sources.load(config.data), _weights(), seed=command_line.SEED.value)
    model = Model.create(config, state.average, step=int(state.step))
    results = suite.evaluate(model, inputs)
    print(suite.text(results.metrics))
    sampler = f"-{config.evaluation.x_chain[0]}-steps" if config.evaluation.x_chain else ""
    out = _out(workdir / "evaluation" / f"{model.step}{sampler}")
    out.mkdir(parents=True, exist_ok=True)
    workdirs.replace(out / "metrics.json", tables.as_json(results.metrics))
    paths = {}
    for name, figure in suite.draw(model, results, workdir).items():
        paths[name] = out / f"{name}.png"
        figures.save(paths[name], figure)
    title = f"Evaluation of {storage.shown(workdir)}"
    page = suite.html(title, results.metrics, paths, config=workdirs.listing(config))
    workdirs.replace(out / "report.html", page)
    print(f"wrote report.html and metrics.json to {storage.shown(out)}")


def export(config, workdir: Path) -> None:
    """Writes a checkpoint as model.safetensors, with config.json and a model card."""
    import json

    from dualmcmc_jax.evaluation import suite
    from dualmcmc_jax.interop import weights_file
    from dualmcmc_jax.report import card
    from dualmcmc_jax.runtime import checkpoints, workdirs

    state = checkpoints.restore(config, workdir, step=command_line.STEP.value)
    config, step = workdirs.stored_config(workdir), int(state.step)  # the run's own, in the fields that may differ too
    out = _out(workdir / "export" / str(step))
    out.mkdir(parents=True, exist_ok=True)
    weights_file.write(out / "model.safetensors", config, state)
    workdirs.replace(out / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
    name, license = command_line.config_name(), command_line.LICENSE.value
    evaluation, shown = suite.stored(workdir / "evaluation" / str(step))
    card.write(out, config, name=name, step=step, license=license, evaluation=evaluation, figures=shown)
    missing = "" if evaluation else "; --mode=evaluate first, and it has numbers and pictures"
    print(f"wrote model.safetensors and README.md, its card, to {storage.shown(out)}{missing}")


def import_(config, workdir: Path) -> None:
    """Makes a workdir that goes on from a model.safetensors."""
    from dualmcmc_jax.interop import weights_file
    from dualmcmc_jax.runtime import checkpoints, workdirs

    path = storage.local_path("weights", command_line.WEIGHTS.value)
    stored, state = weights_file.read(path)
    workdirs.compare(path, stored.to_dict(), config)
    checkpoints.begin(config, workdir, state)
    print(f"wrote {storage.shown(workdir)}, at step {int(state.step)}")


def _weights() -> Path | None:
    given = command_line.INCEPTION_WEIGHTS.value
    return given and storage.local_path("inception_weights", given)


def _out(default: Path) -> Path:
    return storage.local_path("out", command_line.OUT.value) if command_line.OUT.value else default


if __name__ == "__main__":
    cli()
