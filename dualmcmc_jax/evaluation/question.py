"""The interface of the questions that an evaluation answers.

A question is a module of this package, such as `reconstruction.py`. It measures one aspect of a model, and declares
how the report shows the results. `Question` describes the contents of such a module, and `QUESTIONS` in `suite.py`
lists all questions.

To add a metric to an existing question:

1. If the number is computed by a new formula, add a pure function of arrays to `dualmcmc_jax/metrics/`.
2. In the question's module, let `measure` put the number into its dictionary of metrics. A key consists of parts
   separated by "/". One part names the group, which is what the number was measured on. In
   "reconstruction/encoder/mse", the group is "encoder".
3. In `SECTIONS` of the same module, declare the metric under its key, with "{group}" in place of the group:
   "reconstruction/{group}/mse": Metric("MSE", "lower"). A `Metric` has a label, a direction and a unit. The `groups`
   of a section hold the labels of its groups.

A metric that is not declared still appears in the report: under its key, in a last section called "Other".

To add a question:

1. Add a module to this package. The first line of its docstring is the question, and ends with a question mark.
2. Define `SECTIONS`, `CAPTIONS`, `applies`, `measure` and `draw` in the module, as `Question` describes. `measure` and
   `draw` use the model through the methods of `dualmcmc_jax.model.Model`, and the data through `Inputs`.
3. If the question needs random numbers from JAX, add a member to `Stream` in `random_streams.py`.
4. Add the module to `QUESTIONS` in `suite.py`.

The order of the report is decided in three places. Sections follow the order of `QUESTIONS` and, within a question,
the order of `SECTIONS`. The rows and columns of a table follow the order of the keys in the dictionary that `measure`
returns. The figures of a section follow the order of the dictionary that `draw` returns.
"""

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
    """Data and settings that all questions share, besides the model.

    Attributes:
      dataset: the data set, with all training and held-out examples.
      held_out: [N, ...], the held-out examples that the evaluation uses.
      space: the feature space in which samples are compared with data.
      statistics: a function without arguments that returns the statistics of the training data in that space.
      seed: seed of samples and chains.
      history: training metrics and light evaluations of the run so far. Only `draw` receives them.
      others: [N, ...] out-of-distribution examples by the name of their set.
      kept: [M, ...] samples, by "generator" and "revised" (after the x-revision). The question `samples` draws them,
        and all later questions receive them.
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
    """The answer to a question.

    Attributes:
      metrics: numbers by key, in the order in which the report shows them.
      arrays: anything that `draw` of the same question needs. It is not stored.
    """

    metrics: dict[str, Any]
    arrays: Any = None


class Question(Protocol):
    """A module of the evaluation that answers one question and owns the report's sections about it.

    Attributes:
      SECTIONS: sections of the report, which declare the question's metrics. Titles are unique in the whole report.
      CAPTIONS: the caption of each figure, by the name of the figure. The report shows the figures in the first
        section of SECTIONS. Two questions may only share the name of a figure if at most one of them draws this figure
        for a given config and data set.
    """

    SECTIONS: tuple[Section, ...]
    CAPTIONS: Mapping[str, str]

    def applies(self, config, dataset: sources.Dataset) -> bool:
        """Return whether the question can be answered for this config and these data."""

    def measure(self, model: Model, inputs: Inputs) -> Measured:
        """Compute the metrics, and the arrays that `draw` needs."""

    def draw(self, model: Model, inputs: Inputs, measured: Measured) -> dict[str, Figure]:
        """Return the figures of the question.

        Args:
          model: the model.
          inputs: the inputs that `measure` received, with the history of the run.
          measured: what `measure` returned.

        Returns:
          Open Matplotlib figures by name, in the order of the report; an empty dictionary if there is none. Each name
          is a key of CAPTIONS, and becomes the file NAME.png. The caller saves and closes the figures.
        """
