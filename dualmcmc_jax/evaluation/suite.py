"""How good is the model? The list of questions, and their answers as one report."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import subset
from dualmcmc_jax.evaluation import (
    ground_truth_density,
    likelihood,
    linear_gaussian,
    long_chains,
    memorization,
    out_of_distribution,
    reconstruction,
    samples,
)
from dualmcmc_jax.evaluation.question import Inputs, Measured, Question
from dualmcmc_jax.features import spaces
from dualmcmc_jax.model import Model
from dualmcmc_jax.models import Params
from dualmcmc_jax.report import curves, page, tables
from dualmcmc_jax.report.sections import Block, Section, lay_out
from dualmcmc_jax.training import objectives

QUESTIONS: tuple[Question, ...] = (
    samples,  # first, because it keeps samples for others
    reconstruction,
    out_of_distribution,
    long_chains,
    memorization,
    ground_truth_density,
    linear_gaussian,
    likelihood,
)
TRAINING = Section("Training")
SECTIONS = (*(section for question in QUESTIONS for section in question.SECTIONS), TRAINING)
CAPTIONS = {name: caption for question in QUESTIONS for name, caption in question.CAPTIONS.items()} | {
    "training": "Metrics of training, from metrics.jsonl; energies and losses in their own units, mse per pixel."
}
FACTS = ("step", "seed", "features", "num_features", "num_samples", "num_train", "num_held_out", "x_chain")
"""Keys of metrics.json that say what was measured and how. The summary shows them."""


class Results(NamedTuple):
    """The results of an evaluation.

    Attributes:
      metrics: facts and metrics by key, without metrics of networks that no objective trains.
      measured: the answer to each question that applies, in the order of QUESTIONS.
      inputs: the inputs of the evaluation, with the kept samples.
    """

    metrics: dict[str, Any]
    measured: list[tuple[Question, Measured]]
    inputs: Inputs


def inputs(config, dataset: sources.Dataset, inception_weights: Path | None, *, seed: int = 0) -> Inputs:
    """Collect the inputs of an evaluation and check them against the config.

    Args:
      config: the whole config.
      dataset: from `sources.load`.
      inception_weights: file of Inception's weights, or None.
      seed: seed of samples and chains.

    Raises:
      ValueError: there are fewer examples than the config asks for or a comparison takes, the weights are not
        Inception's, or a question cannot be answered for these data.
    """
    num_held_out, available = config.evaluation.num_held_out, len(dataset.test)
    if num_held_out > available:
        raise ValueError(
            f"evaluation.num_held_out: found {num_held_out}, expected at most {available}, all that are held out"
        )
    samples.check(config, num_train=len(dataset.train), num_held_out=available)
    likelihood.check(config, dataset)
    held_out = dataset.test[subset(available, num_held_out)] if num_held_out else dataset.test
    space = spaces.space(config, dataset.train, inception_weights)
    num_features = config.evaluation.num_neighbours
    statistics = functools.cache(lambda: spaces.statistics(space, dataset.train, num_features=num_features))
    return Inputs(dataset, held_out, space, statistics, seed)


def evaluate(model: Model, inputs: Inputs) -> Results:
    """Answer every question that applies by numbers."""
    config = model.run_config
    # Before anything is drawn, because a source of other examples may be unreadable.
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
    """Draw the figures of every question that applies, by name, with the history of training in the workdir."""
    inputs = results.inputs._replace(history=curves.read(workdir))
    made = {}
    for question, answer in results.measured:
        made |= question.draw(model, inputs, answer)
    training = curves.training(inputs.history)
    return made | ({"training": training} if training else {})


def light(config, inputs: Inputs) -> Callable[[Params], dict[str, float]]:
    """Return a function that measures samples and reconstructions of few examples while a model trains.

    Args:
      config: the whole config.
      inputs: from `inputs`.

    Returns:
      measure(params) -> metrics by "light/KEY". They have names of their own because distances of few samples are
      larger than distances of many.
    """
    num_samples = config.evaluation.light_samples
    few = inputs.held_out[subset(len(inputs.held_out), num_samples)]
    inputs = inputs._replace(seed=config.train.seed)

    def measure(params: Params) -> dict[str, float]:
        model = Model.create(config, params)
        metrics, _ = samples.compare(model, inputs, num_samples=num_samples)
        metrics |= reconstruction.reconstruct(model, few, seed=inputs.seed)
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
    """Say in one line which step was evaluated, and what was compared."""
    num_steps, step_size, temperature = metrics["x_chain"]
    chain = f"x-revision of {num_steps} steps of {step_size:.3g} at temperature {temperature:.3g}"
    return (
        f"step {metrics['step']:,}: {metrics['num_samples']:,} samples against the {metrics['num_train']:,} training "
        f"examples, in the feature space {metrics['features']} ({metrics['num_features']} features); "
        f"{chain if num_steps else 'no x-revision'}"
    )


def blocks(metrics: Mapping[str, Any], figures: Mapping[str, Path] | None = None) -> list[Block]:
    """Lay out metrics, and the PNG files of figures by name, as the blocks of a report."""
    homes = {name: question.SECTIONS[0].title for question in QUESTIONS for name in question.CAPTIONS}
    by_section = {}
    for name, path in (figures or {}).items():
        by_section.setdefault(homes.get(name, TRAINING.title), []).append((path, CAPTIONS[name]))
    return lay_out(SECTIONS, {key: value for key, value in metrics.items() if key not in FACTS}, by_section)


def text(metrics: Mapping[str, Any]) -> str:
    """Return the report for a terminal."""
    return tables.text(summary(metrics), blocks(metrics))


def html(title: str, metrics: Mapping[str, Any], figures: Mapping[str, Path], *, config: str) -> str:
    """Return the report as a page, with the PNG files of figures by name and the config as text."""
    return page.html(title, summary(metrics), blocks(metrics, figures), config=config)


def stored(folder: Path) -> tuple[str | None, dict[Path, str]]:
    """Read what a model card shows of the folder of an evaluation.

    Returns:
      The report for a terminal, or None if there is no evaluation, and the captions of some figures by their path.
    """
    path = folder / "metrics.json"
    report = text(json.loads(path.read_text())) if path.exists() else None
    shown = {folder / f"{name}.png": CAPTIONS[name] for name in ("samples", "x_revision")}
    return report, {path: caption for path, caption in shown.items() if path.exists()}
