"""Metrics as tables on a terminal, and as JSON."""

import json
import math
from collections.abc import Iterable
from typing import Any

from dualmcmc_jax.report.sections import Block


def text(summary: str, blocks: Iterable[Block]) -> str:
    """Return the summary and the tables of a report for a terminal."""
    lines = [summary]
    for block in blocks:
        if not block.table:
            continue
        grid = [[block.title, *block.table.columns]]
        grid += [[f"  {name}", *row] for name, row in block.table.rows.items()]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        widths[0] = max(widths[0], 32)
        for first, *rest in grid:
            cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            lines.append(first.ljust(widths[0]) + "  " + "  ".join(cells))
        lines.append("")
    return "\n".join(lines)


def as_json(metrics: dict[str, Any]) -> str:
    """Return metrics as JSON. JSON has neither NaN nor infinity, so both become null."""
    sound = lambda value: None if isinstance(value, float) and not math.isfinite(value) else value
    return json.dumps({name: sound(value) for name, value in metrics.items()}, indent=2) + "\n"
