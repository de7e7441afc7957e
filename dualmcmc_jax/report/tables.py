"""Metrics as text tables for a terminal, and as JSON."""

import json
import math
from collections.abc import Iterable
from typing import Any

from dualmcmc_jax.report.sections import Block


def text(summary: str, blocks: Iterable[Block]) -> str:
    """Return the summary and the tables of a report as text. Notes and figures are left out."""
    lines = [summary, ""]
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
    """Return metrics as JSON text. NaN and infinity, which JSON does not have, become null."""
    finite_or_null = lambda value: None if isinstance(value, float) and not math.isfinite(value) else value
    return json.dumps({name: finite_or_null(value) for name, value in metrics.items()}, indent=2) + "\n"
