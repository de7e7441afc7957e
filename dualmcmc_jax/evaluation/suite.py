"""How good is the model? The list of all questions, and functions that answer them and build one report."""

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import subset
from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.evaluation import (
    ground_truth_density,
    likelihood,
    linear_gaussian,
    long_chains,
    memorization,
    out_of_distribution,
    reconstruction,
    restoration,
    samples,
)
from dualmcmc_jax.evaluation.question import Inputs, Measured, Question
from dualmcmc_jax.features import spaces
from dualmcmc_jax.model import Model
from dualmcmc_jax.models import Params
from dualmcmc_jax.report import curves, page, tables
from dualmcmc_jax.report.sections import Block, Section, lay_out
from dualmcmc_jax.runtime import storage, workdirs
from dualmcmc_jax.training import objectives

QUESTIONS: tuple[Question, ...] = (
    samples,  # first, because later questions use the samples that this question keeps
    reconstruction,
    restoration,
    out_of_distribution,
    long_chains,
    memorization,
    ground_truth_density,
    linear_gaussian,
    likelihood,
)
"""All questions, in the order of the report. `question.py` explains how to add a question."""
TRAINING = Section("Training")
SECTIONS = (*(section for question in QUESTIONS for section in question.SECTIONS), TRAINING)
TRAINING_CAPTION = (
    "Training metrics by their names in metrics.jsonl. energy_data and energy_model are mean energies of data and of "
    "samples, before division by the temperature, and energy_gap is the first minus the second; energy_loss is their "
    "weighted difference divided by the temperature, and should fluctuate around 0. revision_mse is the mean squared "
    "change that the x-revision makes, and posterior_mse_start and posterior_mse_end are the mean squared "
    "reconstruction errors before and after the z-revision, all per pixel or coordinate."
)
_log = logging.getLogger(__name__)
FACTS = ("step", "seed", "features", "num_features", "num_samples", "num_train", "num_held_out", "x_chain", "sampler")
"""Keys of metrics.json that describe the evaluation itself. `summary` shows most of them, and no table shows them."""


class Results(NamedTuple):
    """The results of an evaluation.

    Attributes:
      metrics: facts and metrics by key. Metrics of networks that no objective trains are left out.
      measured: the questions that apply, in the order of QUESTIONS, and the answer to each.
      inputs: the inputs of the evaluation, including the kept samples.
    """

    metrics: dict[str, Any]
    measured: list[tuple[Question, Measured]]
    inputs: Inputs


def inputs(config, dataset: sources.Dataset, inception_weights: Path | None, *, seed: int = 0) -> Inputs:
    """Collect the inputs of an evaluation and check them against the config.

    Args:
      config: the whole config.
      dataset: the data set of the config, from `sources.load`.
      inception_weights: path of the file with Inception's weights, or None.
      seed: seed of samples and chains.

    Raises:
      ValueError: there are too few examples, the weights are not those of Inception, or the config asks for metrics
        that cannot be measured on these data.
    """
    num_held_out, available = config.evaluation.num_held_out, len(dataset.test)
    if num_held_out > available:
        raise ValueError(
            f"evaluation.num_held_out: found {num_held_out}, expected at most {available}, the number of held-out "
            "examples"
        )
    samples.check(config, num_train=len(dataset.train), num_held_out=available)
    likelihood.check(config, dataset)
    held_out = dataset.test[subset(available, num_held_out)] if num_held_out else dataset.test
    space = spaces.space(config, dataset.train, inception_weights)
    num_features = config.evaluation.num_neighbours
    statistics = functools.cache(lambda: spaces.statistics(space, dataset.train, num_features=num_features))
    return Inputs(dataset, held_out, space, statistics, seed)


def evaluate(model: Model, inputs: Inputs) -> Results:
    """Measure the metrics of every question that applies to the model and the data.

    Args:
      model: the model.
      inputs: the inputs of the evaluation, from `inputs`.
    """
    config = model.run_config
    # These sets are made first, so that an unreadable data source is reported before the slow measurements start.
    inputs = inputs._replace(others=out_of_distribution.other_sets(config, inputs.held_out))
    facts = {
        "step": model.step,
        "seed": inputs.seed,
        "features": inputs.space.name,
        "num_features": inputs.space.size,
        "num_samples": config.evaluation.num_samples,
        "num_train": len(inputs.dataset.train),
        "num_held_out": len(inputs.held_out),
        "x_chain": model.x_chain,
        "sampler": model.config.x_chain.sampler,
    }
    measured, metrics = [], {}
    for question in QUESTIONS:
        if question.applies(config, inputs.dataset):
            answer = question.measure(model, inputs)
            measured.append((question, answer))
            metrics |= answer.metrics
            if question is samples:
                inputs = inputs._replace(kept=answer.arrays)
    return Results(facts | of_trained(config, metrics), measured, inputs)


def draw(model: Model, results: Results, workdir: Path) -> dict[str, Figure]:
    """Draw the figures of every question that applies, and the training curves.

    Args:
      model: the model that was evaluated.
      results: its results, from `evaluate`.
      workdir: the folder of the run, whose metrics.jsonl holds the history of training.

    Returns:
      Open figures by name.
    """
    inputs = results.inputs._replace(history=curves.read(workdir))
    drawn = {}
    for question, answer in results.measured:
        drawn |= question.draw(model, inputs, answer)
    training = curves.training(inputs.history)
    return drawn | ({"training": training} if training else {})


def light(config, inputs: Inputs) -> Callable[[Params], dict[str, float]]:
    """Return a function that runs a light evaluation, which compares few samples and reconstructs few examples.

    Args:
      config: the whole config.
      inputs: the inputs of the evaluation, from `inputs`.

    Returns:
      A function from parameters to metrics by "light/KEY". The prefix distinguishes the metrics of light and full
      evaluations, which are not comparable because distances depend on the number of samples.
    """
    num_samples = config.evaluation.light_samples
    held_out = inputs.held_out[subset(len(inputs.held_out), num_samples)]
    inputs = inputs._replace(seed=config.train.seed)

    def measure(params: Params) -> dict[str, float]:
        model = Model.create(config, params)
        metrics, _ = samples.compare(model, inputs, num_samples=num_samples)
        metrics |= reconstruction.reconstruct(model, held_out, seed=inputs.seed)
        return {f"light/{key}": value for key, value in of_trained(config, metrics).items()}

    return measure


def of_trained(config, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Drop metrics of networks that no objective trains."""
    trained = objectives.trained(config)

    def is_kept(key):
        labels = (label for section in SECTIONS for label in section.find(key) or ())
        return all(trained.issuperset(label.needs) for label in labels)

    return {key: value for key, value in metrics.items() if is_kept(key)}


def summary(metrics: Mapping[str, Any]) -> str:
    """Return one line that says which checkpoint was evaluated, on how many examples, and with which sampler."""
    num_steps, step_size, temperature = metrics["x_chain"]
    sampler = metrics.get("sampler", "langevin")  # older evaluations do not name the sampler
    kind = "Langevin steps" if sampler == "langevin" else f"steps of the sampler {sampler}"
    chain = f"x-revision: {num_steps} {kind} of size {step_size:.3g} at temperature {temperature:.3g}"
    space = spaces.LABELS.get(metrics["features"], metrics["features"])
    return (
        f"Checkpoint at step {metrics['step']:,}; {metrics['num_samples']:,} samples compared with "
        f"{metrics['num_train']:,} training examples in {metrics['num_features']} dimensions ({space}); "
        f"{chain if num_steps else 'no x-revision'}"
    )


def blocks(metrics: Mapping[str, Any], figures: Mapping[str, Path] | None = None) -> list[Block]:
    """Lay out the metrics, and the PNG files of the figures, as the blocks of a report.

    Args:
      metrics: facts and metrics by key.
      figures: paths of PNG files, by the name of the figure.
    """
    owners, by_section = _owners(metrics), {}
    for name, path in (figures or {}).items():
        title, caption = TRAINING.title, TRAINING_CAPTION
        if name in owners:
            title, caption = owners[name].SECTIONS[0].title, owners[name].CAPTIONS[name]
        by_section.setdefault(title, []).append((path, caption))
    return lay_out(SECTIONS, {key: value for key, value in metrics.items() if key not in FACTS}, by_section)


def text(metrics: Mapping[str, Any]) -> str:
    """Return the report as text for a terminal: the summary and the tables."""
    return tables.text(summary(metrics), blocks(metrics))


def html(title: str, metrics: Mapping[str, Any], figures: Mapping[str, Path], *, config: str) -> str:
    """Return the report as an HTML page.

    Args:
      title: heading of the page.
      metrics: facts and metrics by key.
      figures: paths of PNG files, by the name of the figure.
      config: the config of the run, as text.
    """
    return page.html(title, summary(metrics), blocks(metrics, figures), config=config)


def stored(folder: Path) -> tuple[str | None, dict[Path, str]]:
    """Read a stored evaluation for a model card.

    Args:
      folder: the folder to which the evaluation was written, which need not exist.

    Returns:
      The report as text, and the captions of the figures to show, by path. Without an evaluation these are None and {}.
      If metrics.json is damaged, they are None and {} too, with a warning.
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None, {}
    try:
        metrics = workdirs.read_json(path)
        report = text(metrics)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        problem = first_line(error) if type(error) is ValueError else f"{type(error).__name__}: {first_line(error)}"
        _log.warning("%s: found no evaluation (%s), expected that of --mode=evaluate", storage.shown(path), problem)
        return None, {}
    owners = _owners(metrics)
    captions = {folder / f"{name}.png": owners[name].CAPTIONS[name] for name in ("samples", "x_revision")}
    return report, {figure: caption for figure, caption in captions.items() if figure.exists()}


def _owners(metrics: Mapping[str, Any]) -> dict[str, Question]:
    """Return the question that each figure belongs to, by the name of the figure.

    If several questions can draw a figure, the figure belongs to the last of them that has metrics.
    """
    answered = [q for q in QUESTIONS if any(section.find(key) for section in q.SECTIONS for key in metrics)]
    return {name: question for question in (*QUESTIONS, *answered) for name in question.CAPTIONS}
