"""What a question of the evaluation is, and what it is given."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax.data import sources
from dualmcmc_jax.features import spaces
from dualmcmc_jax.model import Model
from dualmcmc_jax.report import curves
from dualmcmc_jax.report.sections import Section


class Inputs(NamedTuple):
    """What the questions share, besides the model.

    Attributes:
      dataset: all training and held-out examples.
      held_out: the held-out examples to evaluate with.
      space: the feature space in which samples and data are compared.
      statistics: () -> statistics of the training data in that space.
      seed: seed of samples and chains.
      history: metrics of the run so far.
      others: [N, ...] examples of sets that are not the data, by name.
      kept: [M, ...] samples by name of their model, "generator" or "revised".
    """

    dataset: sources.Dataset
    held_out: np.ndarray
    space: spaces.Space
    statistics: Callable[[], spaces.Statistics]
    seed: int = 0
    history: curves.History = MappingProxyType({})
    others: Mapping[str, np.ndarray] = MappingProxyType({})
    kept: Mapping[str, np.ndarray] = MappingProxyType({})


class Measured(NamedTuple):
    """The answer to a question: metrics by key, and whatever else its figures show."""

    metrics: dict[str, Any]
    arrays: Any = None


class Question(Protocol):
    """A module of the evaluation, which owns the sections of the report about one question.

    Attributes:
      SECTIONS: declare the metrics, with their labels.
      CAPTIONS: the captions of the figures, by name. The figures belong to the first section.
    """

    SECTIONS: tuple[Section, ...]
    CAPTIONS: Mapping[str, str]

    def applies(self, config, dataset: sources.Dataset) -> bool:
        """Return whether a config and its data allow an answer."""

    def measure(self, model: Model, inputs: Inputs) -> Measured:
        """Answer the question by numbers."""

    def draw(self, model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
        """Answer the question by figures, each of a name in CAPTIONS."""
