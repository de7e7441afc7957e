"""Definition of a study: a set of configs to compare, each derived from the config that the command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the package is imported before its program can handle Ctrl-C
    from ml_collections import ConfigDict

Term = tuple[float, str, str]
"""A factor, the name of a variant, and the name of a metric.

The metric has a name from metrics.json, or one of these names:
  "quality": the first of these that was measured: FID, KL(data, EBM), KL(data, generator), a Frechet distance. Lower is
    better.
  "reconstruction": the smallest mean squared error on held-out data, among the inference model and the z-chains.
  "score": the Inception Score, or else the score of a classifier of digits. Higher is better.
"""


class Claim(NamedTuple):
    """Statement about the variants, such as "50 x-steps beats 10 x-steps in quality".

    The terms of a claim are added for each seed. The claim holds if the mean of these sums over seeds is significantly
    above 0.

    Attributes:
      text: the statement, as the table prints it.
      terms: the terms of the sum.
    """

    text: str
    terms: tuple[Term, ...]


class Study(NamedTuple):
    """Variants to compare, with the expected results.

    Attributes:
      variants: configs by name.
      claims: statements about the variants that are expected to hold.
      paper: a heading, and numbers from the paper by variant. The table shows them in a column with this heading.
    """

    variants: dict[str, ConfigDict]
    claims: tuple[Claim, ...] = ()
    paper: tuple[str, dict[str, float]] = ("", {})


def beats(better: str, worse: str, metric: str = "quality") -> Claim:
    """Return the claim that one variant is better than another. A "score" is better if higher, other metrics if lower.

    Args:
      better: name of the variant that is expected to be better.
      worse: name of the other variant.
      metric: name of a metric, "quality", "reconstruction" or "score".
    """
    sign = -1 if metric == "score" else 1
    return Claim(f"{better} beats {worse} in {metric}", ((sign, worse, metric), (-sign, better, metric)))


def changed(config: ConfigDict, **fields) -> ConfigDict:
    """Return a copy of a config with some fields changed.

    Args:
      config: the config to copy.
      **fields: new values. The names of fields contain "__" in place of ".", as in `x_chain__num_steps=5`.
    """
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config
