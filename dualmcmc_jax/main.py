"""The program `dualmcmc`: the table of modes (train, sample, evaluate, ...) and one function for each mode."""

import os
import sys

from dualmcmc_jax.cli import interrupts

if __name__ == "__main__" or os.path.basename(*sys.argv[:1] or [""]) in ("dualmcmc", "dualmcmc.exe"):
    interrupts.end_quietly()

import textwrap
from functools import partial
from pathlib import Path

from absl import logging

from dualmcmc_jax.cli import command_line, completion, terminal
from dualmcmc_jax.cli.command_line import Mode
from dualmcmc_jax.runtime import storage

HELP = """Train, sample or evaluate an energy-based model of images.

  dualmcmc --config=digits                    train; run the same command again to resume
  dualmcmc --config=digits --mode=sample      write samples.png and samples.npz
  dualmcmc --config=digits --mode=evaluate    print all metrics and write report.html

Modes, and the flags that only some modes accept:
{modes}

Flags:
  --pretrained=NAME             use the weights {pretrained}; or hf:OWNER/NAME, https:... or a file
  --config=NAME or FILE         {configs}
  --config.SECTION.FIELD=VALUE  override a config field; configs/default.py documents all fields
  --config.data.source=SOURCE   {sources}
  --workdir=DIR                 folder of the run, or gs://BUCKET/FOLDER (default: runs/NAME); if
                                --config is left out, the config of this run or of --pretrained
  --mode=MODE                   one of the modes above (default: train)
  --step=N                      step of the checkpoint (default: newest) or of the .pth file
  --num_samples=N               number of samples to draw (default: 100)
  --seed=S                      random seed of samples and evaluations (default: 0)
  --input=PATH --reference=PATH a folder, zip or .npz file, or a data source; for detect NAME=PATH
  --task=TASK                   restore: inpaint, with --mask=FILE (white: observed, black: hidden);
                                denoise, with --noise_std=S (pixels in [-1, 1]); or superres, with
                                --factor=N; --observed if --input holds the degraded images
  --inception_weights=FILE      weights-inception-2015-12-05-6726825d.pth, for FID, KID and others;
                                docs/evaluation.md has its address
  --out=DIR                     output folder, of detect a .csv file (default: in the workdir; of
                                compare: comparison/)
  --weights=FILE                as --pretrained, or a .pth checkpoint of the authors' PyTorch code
  --license=NAME                license written into the model card (default: apache-2.0)
  --coordinator_address=HOST:PORT --num_processes=N --process_id=I
                                run as process I (0 to N - 1) of N; detected automatically on Cloud
                                TPU, Slurm and Open MPI, unless --num_processes=1 is given
  --quiet, --verbose, --debug   show only warnings and errors; more messages; tracebacks of errors
  --completion                  enable tab completion: eval "$(dualmcmc --completion)"

In a checkout, ./launch/local.sh and .venv/bin/dualmcmc are the same as `dualmcmc`.
"""
HELP_COLUMNS = 100
"""Maximum number of characters in a line of the help."""


def cli() -> None:
    """Run the console command `dualmcmc`."""
    command_line.run(main, help=help_text, modes=MODES)


def help_text() -> str:
    """Return the text that --help prints. The lists of modes, configs and data sources are made from their tables."""
    from dualmcmc_jax.data import sources  # imported late: tqdm reads TQDM_DISABLE when it is imported
    from dualmcmc_jax.interop import pretrained

    plain = [name for name in completion.configs() if "/" not in name and name != "default"]
    baselines = [name.removeprefix("baselines/") for name in completion.configs() if name.startswith("baselines/")]
    configs = f"{', '.join(plain)}; a file; or baselines/METHOD:NAME, on data of NAME ({', '.join(baselines)})"
    width = max(len(mode.name) for mode in MODES) + 2
    flags_of = lambda mode: f"({' '.join(f'--{flag}' for flag in mode.flags)})"
    modes = []
    for mode in MODES:
        lines = [f"  {mode.name:<{width}}{mode.help}", flags_of(mode)]
        indent = " " * (width + 2)
        wrapped = textwrap.fill(lines[1], HELP_COLUMNS, initial_indent=indent, subsequent_indent=indent + " ")
        modes.append("  ".join(lines) if len("  ".join(lines)) <= HELP_COLUMNS else f"{lines[0]}\n{wrapped}")
    return HELP.format(
        modes="\n".join(modes),
        pretrained=", ".join(pretrained.names()),
        configs=_column(configs),
        sources=_column(sources.kinds().replace("'", "")),
    )


def _column(text: str) -> str:
    """Wrap a text to the width of the right column of the help."""
    indent = 32 * " "
    lines = textwrap.fill(text, HELP_COLUMNS, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return lines.lstrip()


def main(argv: list[str]) -> None:
    """Run the mode that --mode names."""
    logging.set_verbosity(logging.FATAL)  # Orbax and TFDS also log the errors that they raise, and warn needlessly
    mode = command_line.check(MODES)
    if command_line.PRETRAINED.value and mode.name == "train" and not command_line.WORKDIR.value:
        raise ValueError("workdir: found nothing, expected a folder for the run that starts from --pretrained")
    if mode.arguments:
        mode.run(argv[1:])
        return
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
        if command_line.PRETRAINED.value and mode.name != "train":
            _check_holds_no_run(workdir)
        elif mode.has_run:
            config_check.check_run(workdir, config, other_source=mode.name == "train")
        mode.run(config, workdir)
    finally:
        storage.close(workdir, upload=jax.process_index() == 0)


def _check_holds_no_run(workdir: Path) -> None:
    """Raise ValueError if a workdir holds a run, whose results would be mixed with those of --pretrained."""
    from dualmcmc_jax.runtime import workdirs

    if (workdir / "config.json").exists() or workdirs.has_checkpoints(workdir):
        expected = "a folder without a run; without --pretrained, the weights of the run are used"
        raise ValueError(f"workdir: found a run in {storage.shown(workdir)}, expected {expected}")


def _trained(config, workdir: Path):
    """Return the weights of --pretrained, or else the state of a checkpoint. Both have a step and an average."""
    from dualmcmc_jax.training import checkpointing

    step = command_line.STEP.value
    if not command_line.PRETRAINED.value:
        return checkpointing.restore(config, workdir, step=step)
    from dualmcmc_jax import config_check

    check = partial(config_check.compare, config=config, free=(*config_check.FREE, "data.source", "data.crop"))
    return _weights("pretrained", command_line.PRETRAINED.value, step, check)


def _weights(argument: str, name: str, step: int | None, check):
    """Read weights. Raise ValueError if they have another step, or if check(path, stored config) raises it."""
    from dualmcmc_jax.interop import pretrained, weights_file

    path = pretrained.locate(argument, name)
    stored, weights = weights_file.read(path)
    check(path, stored.to_dict())
    if step not in (None, weights.step):
        raise ValueError(f"step: found {step}, expected {weights.step}, the step of {name}")
    return weights


def _start(config, workdir: Path):
    """Return a function that returns the first state of a run from --pretrained, or None if the run has checkpoints."""
    from dualmcmc_jax import config_check
    from dualmcmc_jax.runtime import workdirs

    if workdirs.has_checkpoints(workdir):
        return None
    name = command_line.PRETRAINED.value
    weights = _weights("pretrained", name, None, partial(config_check.compare_networks, config=config))
    if config.train.num_steps <= weights.step:
        expected = f"more than the {weights.step} updates of {name}, such as {2 * weights.step}"
        raise ValueError(f"train.num_steps: found {config.train.num_steps}, expected {expected}")
    return partial(weights.state, config)


def _join_processes(mode: Mode) -> None:
    """Connect to the other processes of the run, if there are any."""
    import jax

    from dualmcmc_jax.cli import startup
    from dualmcmc_jax.runtime import processes

    if command_line.NUM_PROCESSES.value > 1:
        processes.join(command_line.COORDINATOR.value, command_line.NUM_PROCESSES.value, command_line.PROCESS_ID.value)
    elif not command_line.NUM_PROCESSES.present:
        processes.join_cluster(command_line.COORDINATOR.value)
        if command_line.COORDINATOR.value and not jax.distributed.is_initialized():
            raise ValueError(
                "--num_processes: found no value and no cluster, expected a number, as --coordinator_address is given"
            )
    startup.check_devices()
    if jax.process_count() > 1 and "num_processes" not in mode.flags:
        raise ValueError(f"--mode={mode.name}: found {jax.process_count()} processes, expected 1 for this mode")


def train(config, workdir: Path) -> None:
    """Train a model. Save figures of samples at intervals, and run light evaluations if evaluation.every is set."""
    import jax

    from dualmcmc_jax import config_check, models
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import pictures, suite
    from dualmcmc_jax.runtime import signals
    from dualmcmc_jax.training import loop, objectives

    weights = command_line.inception_weights()
    models.build(config)  # raises errors in the network fields before data are downloaded
    objectives.own_function(config)
    start = _start(config, workdir) if command_line.PRETRAINED.value else None
    dataset = sources.load(config.data)
    draw, measure, missing = lambda step, state: {}, lambda state: {}, lambda step: False
    if jax.process_index() == 0:
        missing = partial(pictures.missing, config, workdir / "samples")
        draw = pictures.drawer(config, dataset.test, workdir / "samples")
        if config.evaluation.every:
            light = suite.light(config, suite.inputs(config, dataset, weights))
            measure = lambda state: light(state.average)
    try:
        check = partial(config_check.check_run, workdir, config, other_source=True)
        pictures = {"draw": draw, "missing": missing}
        loop.train(config, workdir, dataset=dataset, measure=measure, check=check, start=start, **pictures)
    except signals.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(signals.EXIT_CODE)
    if jax.process_index() == 0:
        terminal.show(f"done: the trained model is in {storage.shown(workdir)}")


def sample(config, workdir: Path) -> None:
    """Draw samples from a checkpoint. Write them to samples.npz and samples.png."""
    import io

    import numpy as np

    from dualmcmc_jax.evaluation import sampling
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures
    from dualmcmc_jax.runtime import parallel, workdirs

    trained = _trained(config, workdir)
    out = _output_folder(workdir / "samples" / _name(_step(), _sampler(config), _seed()))
    model = Model.create(config, trained.average, step=int(trained.step))
    samples = parallel.collect(
        sampling.stream(model, num_samples=command_line.NUM_SAMPLES.value, seed=command_line.SEED.value)
    )
    file = io.BytesIO()
    np.savez(file, **samples)
    out.mkdir(parents=True, exist_ok=True)
    workdirs.replace(out / "samples.npz", file.getbuffer())
    figures.save(out / "samples.png", sampling.figure(samples))
    terminal.show(f"step {int(trained.step)}: wrote samples.npz and samples.png to {storage.shown(out)}")


def evaluate(config, workdir: Path) -> None:
    """Evaluate a checkpoint. Write metrics.json, figures and report.html, then print the metrics."""
    from dualmcmc_jax import config_check
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import suite
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures, tables
    from dualmcmc_jax.runtime import workdirs

    trained = _trained(config, workdir)
    out = _output_folder(workdir / "evaluation" / _name(str(int(trained.step)), _sampler(config), _seed()))
    weights = command_line.inception_weights()
    dataset = sources.load(config.data)
    workdirs.warn_of_changed_data(workdir, sources.digests(dataset))
    inputs = suite.inputs(config, dataset, weights, seed=command_line.SEED.value)
    model = Model.create(config, trained.average, step=int(trained.step))
    results = suite.evaluate(model, inputs)
    out.mkdir(parents=True, exist_ok=True)
    workdirs.replace(out / "metrics.json", tables.as_json(results.metrics))
    paths = {}
    for name, figure in suite.draw(model, results, workdir).items():
        paths[name] = out / f"{name}.png"
        figures.save(paths[name], figure)
    title = f"Evaluation of {storage.shown(workdir)}"
    page = suite.html(title, results.metrics, paths, config=config_check.listing(config))
    workdirs.replace(out / "report.html", page)
    terminal.show(suite.text(results.metrics))
    terminal.show(f"wrote report.html and metrics.json to {storage.shown(out)}")


def reconstruct(config, workdir: Path) -> None:
    """Reconstruct the examples of --input. Write the reconstructions, their errors and a picture."""
    import io
    import json

    import numpy as np

    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import reconstruction
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures
    from dualmcmc_jax.runtime import workdirs

    trained = _trained(config, workdir)
    out = _output_folder(workdir / "reconstructions" / _name(_step(), _seed()))
    (source,) = command_line.INPUT.value
    _check_apart(out, source)
    x, names = sources.load_all(source, config.data, argument="input")
    model = Model.create(config, trained.average, step=int(trained.step))
    y, errors = reconstruction.of_examples(model, x, seed=command_line.SEED.value)
    out.mkdir(parents=True, exist_ok=True)
    if model.makes_images:
        _write_images(out, names, y)
    else:
        file = io.BytesIO()
        np.savez(file, original=x, reconstruction=y, mse=errors)
        workdirs.replace(out / "reconstructions.npz", file.getbuffer())
    workdirs.replace(out / "mse.json", json.dumps(dict(zip(names, errors.tolist(), strict=True)), indent=2) + "\n")
    figures.save(out / "reconstructions.png", reconstruction.figure(x, y))
    terminal.show(reconstruction.summary(names, errors))
    terminal.show(f"step {int(trained.step)}: wrote {len(x):,} reconstructions, a picture and mse.json to {out}")


def restore(config, workdir: Path) -> None:
    """Restore images that are partly hidden, noisy or small. Write the restored images, a picture and metrics.json."""
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import restoration
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures, tables
    from dualmcmc_jax.runtime import workdirs

    task, shape, seed = command_line.TASK.value, tuple(config.data.shape), command_line.SEED.value
    flags = {"mask": command_line.MASK.value, "factor": command_line.FACTOR.value}
    operator, noise_std = restoration.task_operator(task, shape, noise_std=command_line.NOISE_STD.value, flags=flags)
    trained = _trained(config, workdir)
    out = _output_folder(workdir / "restorations" / _name(task, _step(), _sampler(config), _seed()))
    (source,) = command_line.INPUT.value
    _check_apart(out, source)
    if command_line.OBSERVED.value:
        x, (y, names) = None, restoration.load_observed(source, config.data, task, flags)
    else:
        x, names = sources.load_all(source, config.data, argument="input")
        y = restoration.degrade(x, operator, noise_std=noise_std, seed=seed)
    num_samples = command_line.NUM_SAMPLES.value if command_line.NUM_SAMPLES.present else 20
    model = Model.create(config, trained.average, step=int(trained.step))
    restored = restoration.restore(model, y, operator, noise_std=noise_std, num_samples=num_samples, seed=seed)
    psnr = None if x is None else restoration.errors(x, restored)
    out.mkdir(parents=True, exist_ok=True)
    _write_images(out, names, restored.mean)
    facts = {"task": task, "noise_std": noise_std, "num_samples": num_samples, "step": int(trained.step), "seed": seed}
    workdirs.replace(out / "metrics.json", tables.as_json(facts | restoration.metrics(names, restored, psnr)))
    figures.save(out / "restorations.png", restoration.figure(restored, x))
    terminal.show(restoration.summary(restored, psnr, noise_std=noise_std))
    shown = storage.shown(out)
    terminal.show(f"step {int(trained.step)}: wrote {len(y):,} images, restorations.png and metrics.json to {shown}")


def detect(config, workdir: Path) -> None:
    """Score the examples of --input. Write the scores, their percentiles among held-out data, and a figure."""
    import json

    from dualmcmc_jax.data import sources
    from dualmcmc_jax.data.batches import subset
    from dualmcmc_jax.evaluation import detection
    from dualmcmc_jax.model import Model
    from dualmcmc_jax.report import figures, tables
    from dualmcmc_jax.runtime import workdirs

    trained, seed = _trained(config, workdir), command_line.SEED.value
    out = _output_file(workdir / "detection" / _name(_step(), _seed()) / "scores.csv", detection.HEADER)
    sets = detection.load(command_line.INPUT.value, config.data)
    dataset = sources.load(config.data)
    workdirs.warn_of_changed_data(workdir, sources.digests(dataset))
    held_out = dataset.test[subset(len(dataset.test), config.evaluation.num_held_out or len(dataset.test))]
    model = Model.create(config, trained.average, step=int(trained.step))
    reference = detection.scores(model, held_out, seed=seed)
    of_sets = {name: detection.scores(model, examples.x, seed=seed) for name, examples in sets.items()}
    names = [*detection.used(config)]
    results = detection.separation(of_sets, reference, names, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    workdirs.replace(out, detection.table(sets, of_sets, reference, names))
    workdirs.replace(out.with_suffix(".json"), json.dumps(results, indent=2) + "\n")
    figures.save(out.with_suffix(".png"), detection.figure(of_sets, reference, names))
    counts = {name: len(examples.x) for name, examples in sets.items()}
    title = f"step {int(trained.step)}: each set against {len(held_out):,} held-out examples of {config.data.source}"
    terminal.show(tables.text(title, detection.blocks(results, counts, len(held_out))))
    files = f"{out.name}, {out.with_suffix('.json').name} and {out.with_suffix('.png').name}"
    terminal.show(f"wrote the scores of {sum(counts.values()):,} examples: {files} in {storage.shown(out.parent)}")


def compare(names: list[str]) -> None:
    """Write a page that shows the metrics, curves, samples and configs of several runs side by side."""
    from dualmcmc_jax.evaluation import comparison
    from dualmcmc_jax.report import curves, figures, page, tables
    from dualmcmc_jax.report.sections import Block
    from dualmcmc_jax.runtime import workdirs

    out = _output_folder(Path("comparison"))
    shown, folders = comparison.names(names), []
    try:
        folders += [storage.open_workdir(name, argument="RUN") for name in names]
        runs = comparison.read(dict(zip(shown, folders, strict=True)))
        blocks = comparison.blocks(runs)
        training = curves.compare({run.name: run.history for run in runs})
        out.mkdir(parents=True, exist_ok=True)
        pictures = [(run.samples, run.name) for run in runs if run.samples]
        if pictures:
            blocks.append(Block("Pictures of samples", "", None, pictures))
        if training:
            picture = out / "comparison.png"
            figures.save(picture, training)
            blocks.append(Block("Curves of training", "", None, [(picture, "Training metrics of all runs.")]))
        summary = comparison.summary(runs)
        workdirs.replace(out / "comparison.html", page.html("Comparison of runs", summary, blocks, config=""))
    finally:
        for folder in folders:
            storage.close(folder, upload=False)
    terminal.show(tables.text(summary, blocks))
    terminal.show(f"wrote comparison.html to {storage.shown(out)}")


def distance(config, _workdir: Path) -> None:
    """Print the distances between the examples of --input and those of --reference."""
    from dualmcmc_jax.data import sources
    from dualmcmc_jax.evaluation import distance

    weights, names = (
        command_line.inception_weights(),
        {"input": command_line.INPUT.value[0], "reference": command_line.REFERENCE.value},
    )
    sets = {flag: sources.load_all(name, config.data, argument=flag)[0] for flag, name in names.items()}
    features, metrics = distance.measure(config, sets["input"], sets["reference"], weights)
    counts = " compared with ".join(f"{len(x):,} examples of {names[flag]}" for flag, x in sets.items())
    terminal.show(f"{counts}, of shape {tuple(config.data.shape)}, by {features}")
    terminal.show("\n".join(f"  {name:<20}{value:.4g}" for name, value in metrics.items()))


def export(config, workdir: Path) -> None:
    """Write a checkpoint as model.safetensors, next to config.json and a model card."""
    import json

    from dualmcmc_jax import config_check
    from dualmcmc_jax.evaluation import suite
    from dualmcmc_jax.interop import weights_file
    from dualmcmc_jax.report import card
    from dualmcmc_jax.runtime import workdirs
    from dualmcmc_jax.training import checkpointing

    state = checkpointing.restore(config, workdir, step=command_line.STEP.value)
    # The command line may differ from the run in the fields of config_check.FREE. Export the config of the run.
    config, step = config_check.stored_config(workdir), int(state.step)
    out = _output_folder(workdir / "export" / str(step))
    out.mkdir(parents=True, exist_ok=True)
    weights_file.write(out / "model.safetensors", config, state)
    workdirs.replace(out / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
    name, license = command_line.config_name(), command_line.LICENSE.value
    evaluation, evaluation_figures = suite.stored(workdir / "evaluation" / str(step))
    card.write(out, config, name=name, step=step, license=license, evaluation=evaluation, figures=evaluation_figures)
    hint = "" if evaluation else "; to include metrics and figures in the model card, run --mode=evaluate first"
    terminal.show(f"wrote model.safetensors and its model card README.md to {storage.shown(out)}{hint}")


def import_(config, workdir: Path) -> None:
    """Create a workdir from weights or from a .pth checkpoint of the authors' code."""
    from dualmcmc_jax import config_check
    from dualmcmc_jax.interop import torch_import
    from dualmcmc_jax.training import checkpointing

    name, step = command_line.WEIGHTS.value, command_line.STEP.value
    if name.endswith(".pth"):
        state = torch_import.convert(storage.local_path("weights", name), config, step=step)
    else:
        state = _weights("weights", name, step, partial(config_check.compare, config=config)).state(config)
    checkpointing.begin(config, workdir, state, check=partial(config_check.check_run, workdir, config))
    terminal.show(f"imported {name} at step {int(state.step)} into {storage.shown(workdir)}")


def _check_apart(out: Path, source: str) -> None:
    """Raise ValueError if the output folder is the source, the value of --input."""
    if out.resolve() == Path(source).expanduser().resolve():
        raise ValueError(f"--out: found {out}, the folder of --input, expected another folder")


def _write_images(out: Path, names: list[str], images) -> None:
    """Write uint8 images [N, H, W, C] as PNG files, whose names contain their index and their name."""
    import io
    import re

    from PIL import Image

    from dualmcmc_jax.runtime import workdirs

    for i, (name, image) in enumerate(zip(names, images, strict=True)):
        file, stem = io.BytesIO(), re.sub(r"[^\w.-]", "_", Path(name).stem)[:100]
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG")
        workdirs.replace(out / f"{i:05d}_{stem}.png", file.getbuffer())


def _name(*parts: str) -> str:
    """Return the name of the folder of results that are made in another way than by default, or "" by default."""
    return "-".join(filter(None, parts))


def _step() -> str:
    return "" if command_line.STEP.value is None else f"step-{command_line.STEP.value}"


def _seed() -> str:
    return f"seed-{command_line.SEED.value}" if command_line.SEED.value else ""


def _sampler(config) -> str:
    """Return a name for the settings in which the x-chain for sampling differs from that of training."""
    trained = (config.x_chain.num_steps, config.x_chain.step_size, config.energy.temperature)
    chosen = config.evaluation.x_chain or trained
    names = (f"{chosen[0]}-steps", f"size-{float(chosen[1])}", f"temperature-{float(chosen[2])}")
    changed = (name for name, new, old in zip(names, chosen, trained, strict=True) if new != old)
    sampler = config.evaluation.sampler
    return _name(sampler if sampler != config.x_chain.sampler else "", *changed)


def _output_folder(default: Path) -> Path:
    """Return the output folder. Raise ValueError if it cannot be written to, before any work is done."""
    given = command_line.OUT.value
    folder = storage.local_path("out", given) if given else default
    storage.check_writable("out" if given else "workdir", folder)
    return folder


def _output_file(default: Path, header: str) -> Path:
    """Return the output file. Raise ValueError if it cannot be written, before any work is done.

    Existing files of this name that end in .csv, .json and .png are replaced only if the first begins with the header.
    """
    given = command_line.OUT.value
    path = storage.local_path("out", given, expected="a local file") if given else default
    storage.check_writable("out" if given else "workdir", path.parent)
    others = [path.with_suffix(suffix) for suffix in (".csv", ".json", ".png")]
    existing = [other for other in others if other.exists()]
    if existing and not (path.is_file() and path.read_text(errors="replace").startswith(header)):
        found = f"a file {storage.shown(existing[0])} that --mode={command_line.MODE.value} has not written"
        raise ValueError(f"{'out' if given else 'workdir'}: found {found}, expected another name")
    return path


MODES = (
    Mode("train", train, ("inception_weights", "num_processes", "pretrained"), "train a model, or resume"),
    Mode("sample", sample, ("step", "num_samples", "seed", "out", "pretrained"), "draw samples, as .png and .npz"),
    Mode(
        "evaluate",
        evaluate,
        ("step", "seed", "inception_weights", "out", "pretrained"),
        "compute all metrics",
    ),
    Mode(
        "reconstruct",
        reconstruct,
        ("step", "seed", "input", "out", "pretrained"),
        "reconstruct your own images",
        ("input",),
    ),
    Mode(
        "restore",
        restore,
        (
            "task",
            "mask",
            "noise_std",
            "factor",
            "observed",
            "num_samples",
            "step",
            "seed",
            "input",
            "out",
            "pretrained",
        ),
        "restore images that are partly hidden, noisy or small",
        ("input", "task"),
    ),
    Mode(
        "detect",
        detect,
        ("step", "seed", "input", "out", "pretrained"),
        "find unusual images in your own",
        ("input",),
        repeated=("input",),
        out=".csv",
    ),
    Mode(
        "distance",
        distance,
        ("input", "reference", "inception_weights"),
        "compare two folders of images",
        ("input", "reference"),
        has_run=False,
    ),
    Mode("compare", compare, ("out",), "show RUN RUN ... side by side", has_run=False, arguments="RUN"),
    Mode("export", export, ("step", "out", "license"), "write model.safetensors and a model card"),
    Mode("import", import_, ("step", "weights"), "create a workdir from a weights file", ("weights",)),
)
"""The modes of the program. To add a mode, write its function and add a row to this table."""


if __name__ == "__main__":
    cli()
