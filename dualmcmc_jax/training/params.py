"""A thing for each of the three networks."""

from typing import Any, NamedTuple


class Params(NamedTuple):
    """The three networks' parameters, gradients, optimisers or optimiser states."""

    energy: Any
    generator: Any
    encoder: Any
