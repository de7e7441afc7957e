"""Train a model of images, draw from it, or measure it: the table of modes, and one short function for each."""

import sys
from functools import partial
from pathlib import Path

from absl import logging

from dualmcmc_jax.cli import command_line, terminal
from dualmcmc_jax.cli.command_line import Mode
from dualmcmc_jax.runtime import storage

HELP = """Trains a model of images, draws from it, or measures it.

  dualmcmc --config=digits                                      train; the same command again resumes
  dualmcmc --config=images --config.data.source=images:FOLDER   train on a folder or zip file of images
  dualmcmc --config=digits --mode=sample --num_samples=400      write samples.png and samples.npz
  dualmcmc --config=digits --mode=evaluate                      print every number, write report.html
  dualmcmc --config=cifar10 --mode=import --weights=FILE --workdir=DIR   go on from a given model

modes, and the flags that not all of them use:
{modes}

flags:
  --config=NAME or FILE         digits, toy2d, linear_gaussian, cifar10, celeba64, images; or a Python file;
                                baselines/METHOD:NAME for another method on one of these, such as baselines/vae:digits
  --config.SECTION.FIELD=VALUE  sets one field; configs/default.py lists them all with their meaning
  --workdir=DIR                 folder of the run, or gs://BUCKET/FOLDER; default: runs/NAME
  --mode=MODE                   default: train
  --step=N                      the checkpoint to sample, evaluate or export; default: the newest. To import a .pth
                                file: the updates it has had; default: what its optimizers say, or 0 without them
  --num_samples=N               samples to draw; default: 100 (--config.evaluation.num_samples: to evaluate)
  --seed=S                      of the samples; default: 0
  --inception_weights=FILE      pt_inception-2015-12-05-6726825d.pth, for FID, KID and Inception Score
  --out=DIR                     where it goes; default: WORKDIR/samples, WORKDIR/evaluation/STEP, WORKDIR/export/STEP
  --weights=FILE                the model.safetensors to import, or a .pth checkpoint of the authors' PyTorch code;
                                PyTorch is not needed, and nothing in the file is executed
  --license=NAME                of the exported weights; default: apache-2.0
  --coordinator_address=HOST:PORT --num_processes=N --process_id=I
                                makes this process number I, from 0, of N that run the same command; on Cloud TPU,
                                under Slurm and Open MPI they find each other by themselves, unless --num_processes=1
  --quiet, --verbose            no progress and no notes; more notes
  --debug                       show the traceback of an error
  --completion                  print what completes all this: eval "$(dualmcmc --completion)"

From a checkout, `python -m dualmcmc_jax.main` is the same as `dualmcmc`.
"""


def cli() -> None:
    """Run the console command."""
    command_line.run(main, help=help_text(), modes=MODES)


def help_text() -> str:
    """Return what --help prints."""
    used = lambda mode: " ".join(f"--{flag}" for flag in mode.flags)
    return HELP.format(modes="\n".join(f"  {mode.name:<10}{mode.help}\n{'':<12}{used(mode)}" for mode in MODES))


def main(_argv) -> None:
    """Run the chosen mode."""
    logging.set_verbosity(logging.FATAL)  # Orbax and TFDS warn of what is meant, and log what they raise as well
    mode = command_line.check(MODES)
    import jax

    from dualmcmc_jax import config_check
    from dualmcmc_jax.cli import startup

    config = command_line.CONFIG.value
    config_check.check(config)
    startup.start(config)
    _join_processes(mode)
    if jax.process_index():
        terminal.start(quiet=True, verbose=False)
    workdir = storage.open_workdir(command_line.WORKDIR.value or f"runs/{command_line.config_name()}")
    try:
        config_check.check_run(workdir, config)
        mode.run(config, workdir)
    finally:
        storage.close(workdir, leads=jax.process_index() == 0)


def _join_processes(mode: Mode) -> None:
    """Join the other processes of the run, if there are any."""
    import jax

    from dualmcmc_jax.runtime import processes

    if command_line.NUM_PROCESSES.value > 1:
        processes.join(command_line.COORDINATOR.value, command_line.NUM_PROCESSES.value, command_line.PROCESS_ID.value)
    elif not command_line.NUM_PROCESSES.present:
        processes.join_cluster(command_line.COORDINATOR.value)
        if command_line.COORDINATOR.value and not jax.distributed.is_initialized():
            raise ValueError("--num_processes: found none, and no cluster, expected one with --coordinator_address")
    if jax.process_count() > 1 and "num_processes" not in mode.flags:
        raise ValueError(f"--mode={mode.name}: found {jax.process_count()} processes, expected one, on a single host")


def train(config, workdir: Path) -> None:
    """Train, with pictures now and then, and a light evaluation if evaluation.every asks for one."""
    import jax

    from dualmcmc_jax import config_check, models
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
        check = partial(config_check.check_run, workdir, config)
        loop.train(config, workdir, dataset=dataset, draw=draw, measure=measure, check=check)
    except signals.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(signals.EXIT_CODE)
    if jax.process_index() == 0:
        print(f"done: {storage.shown(workdir)}")


def sample(config, workdir: Path) -> None:
    """Draw from a checkpoint into samples.npz and samples.png."""
    import numpy as np

    from dualmcmc_jax.evaluation import sampling
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures
    from dualmcmc_jax.runtime import parallel
    from dualmcmc_jax.training import checkpointing

    state = checkpointing.restore(config, workdir, step=command_line.STEP.value)
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
    """Measure a checkpoint: print a table, write metrics.json, figures and report.html."""
    from dualmcmc_jax import config_check
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import suite
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures, tables
    from dualmcmc_jax.runtime import workdirs
    from dualmcmc_jax.training import checkpointing

    state = checkpointing.restore(config, workdir, step=command_line.STEP.value)
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
    page = suite.html(title, results.metrics, paths, config=config_check.listing(config))
    workdirs.replace(out / "report.html", page)
    print(f"wrote report.html and metrics.json to {storage.shown(out)}")


def export(config, workdir: Path) -> None:
    """Write a checkpoint as model.safetensors, with config.json and a model card."""
    import json

    from dualmcmc_jax import config_check
    from dualmcmc_jax.evaluation import suite
    from dualmcmc_jax.interop import weights_file
    from dualmcmc_jax.report import card
    from dualmcmc_jax.runtime import workdirs
    from dualmcmc_jax.training import checkpointing

    state = checkpointing.restore(config, workdir, step=command_line.STEP.value)
    config, step = config_check.stored_config(workdir), int(state.step)  # in free fields too, the config of the run
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
    """Make a workdir whose run goes on from a model.safetensors, or from a .pth checkpoint of the authors."""
    from dualmcmc_jax import config_check
    from dualmcmc_jax.interop import torch_import, weights_file
    from dualmcmc_jax.training import checkpointing

    path, step = storage.local_path("weights", command_line.WEIGHTS.value), command_line.STEP.value
    if path.suffix == ".pth":
        state = torch_import.convert(path, config, step=step)
    else:
        stored, state = weights_file.read(path)
        config_check.compare(path, stored.to_dict(), config)
        if step not in (None, int(state.step)):
            raise ValueError(f"--step: found {step}, expected {int(state.step)}, that of {path}")
    checkpointing.begin(config, workdir, state, check=partial(config_check.check_run, workdir, config))
    print(f"wrote {storage.shown(workdir)}, at step {int(state.step)}")


def _weights() -> Path | None:
    given = command_line.INCEPTION_WEIGHTS.value
    return given and storage.local_path("inception_weights", given)


def _out(default: Path) -> Path:
    return storage.local_path("out", command_line.OUT.value) if command_line.OUT.value else default


MODES = (
    Mode("train", train, ("inception_weights", "num_processes"), "train; the same command again resumes"),
    Mode("sample", sample, ("step", "num_samples", "seed", "out"), "write samples.png and samples.npz"),
    Mode("evaluate", evaluate, ("step", "seed", "inception_weights", "out"), "print every number, write report.html"),
    Mode("export", export, ("step", "out", "license"), "write model.safetensors and a model card"),
    Mode("import", import_, ("step", "weights"), "make a workdir that goes on from a given model", ("weights",)),
)
"""What the program can do. A new mode is a function and a row."""


if __name__ == "__main__":
    cli()
