"""Sections of a report: how metrics are labelled, and how labelled metrics become tables.

The report knows no metric by name. Whoever computes metrics declares a `Section` for them. A metric of no section goes
to a section of its own at the end, so that none is lost.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

OTHER_TITLE = "Other"


class Metric(NamedTuple):
    """How a metric is labelled.

    Attributes:
      label: its name for readers.
      better: which direction is better, or "" if neither is.
      unit: printed after the label; "" without a unit, or if the note of the section explains it.
      needs: names of the networks that the metric measures. It says nothing about a model that has not trained them.
    """

    label: str
    better: Literal["higher", "lower", ""] = ""
    unit: str = ""
    needs: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The label with its direction and its unit."""
        arrow = {"higher": " ↑", "lower": " ↓", "": ""}[self.better]
        return f"{self.label}{arrow}{f' ({self.unit})' if self.unit else ''}"


class Group(NamedTuple):
    """What several metrics are measured of, such as a model or a set of examples.

    Attributes:
      label: its name for readers.
      needs: names of the networks that all metrics of the group measure.
    """

    label: str
    needs: tuple[str, ...] = ()


class Section(NamedTuple):
    """The declaration of one part of a report, with one table.

    Attributes:
      title: heading of the section and of its table.
      note: what readers need to know to read the table.
      metrics: by their keys, with "{group}" in the place of the group, such as "reconstruction/{group}/mse".
      groups: by their part of the key.
      other_groups: label of a group that is not in `groups`, with "{}" for its part of the key; None if there is no
        group besides those in `groups`.
      groups_are: whether groups are the table's columns, and metrics its rows, or the other way round.
    """

    title: str
    note: str = ""
    metrics: Mapping[str, Metric] = {}
    groups: Mapping[str, Group] = {}
    other_groups: str | None = None
    groups_are: Literal["columns", "rows"] = "columns"

    def find(self, key: str) -> tuple[Metric, Group] | None:
        """Return the metric and the group of a key, or None if the key belongs to another section."""
        for pattern, metric in self.metrics.items():
            before, after = pattern.split("{group}")
            name = key[len(before) : len(key) - len(after)]
            if not name or key != before + name + after:
                continue
            if name in self.groups:
                return metric, self.groups[name]
            if self.other_groups is not None:
                is_source = ":" in name  # the name of a data source is shown as it is typed
                return metric, Group(self.other_groups.format(name if is_source else name.replace("_", " ")))
        return None


class Table(NamedTuple):
    """A table of texts: the names of the columns, and the rows by their names. A dash stands for a missing number."""

    columns: list[str]
    rows: dict[str, list[str]]


class Block(NamedTuple):
    """One part of a report with its content.

    Attributes:
      title: heading.
      note: what readers need to know to read the table.
      table: None if the section has no metric.
      figures: (file name of a PNG, caption) of each figure.
    """

    title: str
    note: str
    table: Table | None
    figures: list[tuple[Any, str]]


def lay_out(
    sections: Sequence[Section], metrics: Mapping[str, Any], figures: Mapping[str, list[tuple[Any, str]]] | None = None
) -> list[Block]:
    """Distribute metrics and figures to the sections.

    Args:
      sections: in the order of the report.
      metrics: numbers by key.
      figures: (file, caption) of each figure, by the title of its section.

    Returns:
      A block for each section that has a metric or a figure. A last one holds the metrics that have no section.
    """
    figures = figures or {}
    cells = {section.title: {} for section in sections}
    cells[OTHER_TITLE] = {}
    for key, value in metrics.items():
        for section in sections:
            if labels := section.find(key):
                metric, group = labels
                names = (metric.heading, group.label)
                cells[section.title][names if section.groups_are == "columns" else names[::-1]] = value
                break
        else:
            cells[OTHER_TITLE][key, "value"] = value
    notes = {section.title: section.note for section in sections}
    blocks = []
    for title, values in cells.items():
        table = _table(values) if values else None
        if table or title in figures:
            blocks.append(Block(title, notes.get(title, "") if table else "", table, figures.get(title, [])))
    return blocks


def _table(values: Mapping[tuple[str, str], Any]) -> Table:
    """Return the table of values by (row, column)."""
    rows, columns = _unique(row for row, _ in values), _unique(column for _, column in values)
    return Table(columns, {row: [number(values.get((row, column))) for column in columns] for row in rows})


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def number(value: Any) -> str:
    """Return a number as text of about four digits, and a dash for None."""
    if value is None:
        return "-"
    if not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
