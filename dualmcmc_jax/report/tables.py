"""Metrics as a table on the terminal and as one self-contained page."""

import base64
import html
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from dualmcmc_jax.report.wording import CAPTIONS, COLUMNS, FALLING, FIGURES, NOTES, RISING, SECTIONS

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; color: #222; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.15rem; margin: 1.8rem 0 0.4rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.2rem 0.9rem 0.2rem 0; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td { font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; overflow-x: auto; }
img { max-width: 100%; min-width: 40rem; height: auto; }
figcaption { font-size: 0.9rem; color: #555; }
pre { overflow-x: auto; font-size: 0.8rem; background: #f6f6f6; padding: 0.8rem; }
"""


class Table(NamedTuple):
    """The section it is of, a title, the columns' names, and rows of cells by name; a dash is no number."""

    section: str
    title: str
    columns: list[str]
    rows: dict[str, list[str]]


def tables(metrics: dict[str, Any]) -> list[Table]:
    """The metrics whose names have parts, "section/column/row" in one order or another, as tables."""
    cells = {section: {} for section in SECTIONS}
    for name, value in metrics.items():
        section, _, rest = name.partition("/")
        if section in ("generator", "revised", "held_out"):
            section, row, column = "samples", rest, section
        elif section in ("reconstruction", "long_run", "likelihood", "density", "chain", "linear"):
            column, row = rest.split("/", 1)
            column += " steps" if section == "long_run" else ""
        elif section == "energy":
            row, column = rest.rsplit("/", 1)
        elif section == "auroc":
            section, row, column = "energy", rest, "AUROC"
        else:
            continue
        cells[section].setdefault(row, {})[column] = value
    made = []
    for section, rows in cells.items():
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        text = {name: [_number(row.get(column)) for column in columns] for name, row in rows.items()}
        if rows:
            headings = [COLUMNS.get(column, column.replace("_", " ")) for column in columns]
            made.append(Table(section, SECTIONS[section], headings, {_label(n): row for n, row in text.items()}))
    return made


def as_json(metrics: dict[str, Any]) -> str:
    """The metrics as JSON, which knows no NaN and no infinity: they are null."""
    sound = lambda value: None if isinstance(value, float) and not math.isfinite(value) else value
    return json.dumps({name: sound(value) for name, value in metrics.items()}, indent=2) + "\n"


def text(metrics: dict[str, Any]) -> str:
    """The tables for a terminal."""
    parts = [summary(metrics)]
    for table in tables(metrics):
        grid = [[table.title, *table.columns]]
        grid += [[f"  {name}", *row] for name, row in table.rows.items()]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        widths[0] = max(widths[0], 32)
        for row in grid:
            first, *rest = row
            cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            parts.append(first.ljust(widths[0]) + "  " + "  ".join(cells))
        parts.append("")
    return "\n".join(parts)


def summary(metrics: dict[str, Any]) -> str:
    """One line: which step, and what was compared."""
    num_steps, step_size, temperature = metrics["x_chain"]
    chain = f"x-revision of {num_steps} steps of {step_size:.3g} at temperature {temperature:.3g}"
    return (
        f"step {metrics['step']:,}: {metrics['num_samples']:,} samples against the {metrics['num_train']:,} training "
        f"examples, in the feature space {metrics['features']} ({metrics['num_features']} features); "
        f"{chain if num_steps else 'no x-revision'}"
    )


def page(name: str, metrics: dict[str, Any], figures: dict[str, Path], config: str) -> str:
    """One HTML page that asks for nothing else: the tables, the figures (PNG files by name) and the config, as text."""
    e = html.escape
    parts = [f"<h1>{e(name)}</h1><p>{e(summary(metrics))}.</p>"]
    parts += _figures(figures, "samples")
    for table in tables(metrics):
        header = "".join(f"<th>{e(column)}</th>" for column in ("", *table.columns))
        rows = (
            f"<tr><td>{e(row)}</td>{''.join(f'<td>{e(cell)}</td>' for cell in cells)}</tr>"
            for row, cells in table.rows.items()
        )
        parts.append(f"<h2>{e(table.title)}</h2>")
        parts.append(f'<div class="scroll"><table><tr>{header}</tr>{"".join(rows)}</table></div>')
        parts.append(f"<p>{e(NOTES[table.section])}</p>")
        parts += _figures(figures, *FIGURES[table.section])
    parts += ["<h2>Training</h2>", *_figures(figures, "training")]
    parts.append(f"<h2>Config</h2><pre>{e(config)}</pre>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{e(name)}</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _figures(figures: dict[str, Path], *names: str) -> list[str]:
    """Those of the named figures that there are."""
    parts = []
    for name in names:
        if name in figures:
            data, caption = base64.b64encode(figures[name].read_bytes()).decode(), html.escape(CAPTIONS[name])
            image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
            parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return parts


def _label(name: str) -> str:
    if ":" in name:  # a data source
        return name
    arrow = " ↑" if name.startswith(RISING) else " ↓" if name.startswith(FALLING) else ""
    return name.replace("_", " ") + ("" if name.endswith(("_std", "_error")) else arrow)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
