"""Studies: sets of configs to be compared, each made of the one config that the command line names."""

from typing import NamedTuple

from ml_collections import ConfigDict

Term = tuple[float, str, str]
"""A factor, the name of a variant, and that of a metric.

"quality" stands for FID, or else KL(data, EBM) or of the generator where there is no EBM, or else a Frechet distance;
"reconstruction" for the smallest error of held-out data, by inference model or z-chain; "score" for the Inception Score
or that of a classifier of digits, the more the better.
"""


class Claim(NamedTuple):
    """A sentence that holds if the sum of its terms, over runs of the same seed, is positive."""

    text: str
    terms: tuple[Term, ...]


class Study(NamedTuple):
    """Attributes:
    variants: configs by name.
    claims: what the paper, or common sense, says of them.
    paper: (a heading, the paper's numbers by variant).
    """

    variants: dict[str, ConfigDict]
    claims: tuple[Claim, ...] = ()
    paper: tuple[str, dict[str, float]] = ("", {})


def beats(better: str, worse: str, metric: str = "quality") -> Claim:
    """Lower is better, but of scores higher."""
    sign = -1 if metric == "score" else 1
    return Claim(f"{better} beats {worse} in {metric}", ((sign, worse, metric), (-sign, better, metric)))


def changed(config: ConfigDict, **fields) -> ConfigDict:
    """A copy with fields set; their names have "__" for the dot."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config
