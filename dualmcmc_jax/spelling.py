"""Suggestions for misspelt names in error messages."""

import difflib
from collections.abc import Collection, Iterable


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return "; did you mean X?" with the choice that resembles a misspelt name most, or "" if no choice does."""
    return question(difflib.get_close_matches(name, [*choices], 1, 0.75))


def one_of(name: str, choices: Collection[str]) -> str:
    """Return "one of 'X', 'Y'", the choices in place of a wrong name, with the one that the name resembles."""
    return f"one of {', '.join(map(repr, choices))}{did_you_mean(name, choices)}"


def question(names: list[str]) -> str:
    """Return "; did you mean X or Y?" for a list of names, or "" for an empty list."""
    return f"; did you mean {' or '.join(names)}?" if names else ""
