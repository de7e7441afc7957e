"""Suggestions for misspelt names in error messages."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return "; did you mean X?" with the choices that resemble a misspelt name, or "" if no choice does.

    Args:
      name: the misspelt name.
      choices: the valid names. If they consist of parts with dots between them, an equal last part is enough.
    """
    choices, last = [*choices], name.rpartition(".")[2]
    near = [choice for choice in choices if choice.rpartition(".")[2] == last][:3]
    near = near or difflib.get_close_matches(name, choices, 1, 0.75)
    return f"; did you mean {' or '.join(near)}?" if near else ""
