"""Sections of a report: the labels of metrics, and the layout of labeled metrics in tables.

This module does not contain the name of any metric. The modules of `evaluation` declare a `Section` for the metrics
that they compute. Metrics that no section declares appear in a last section, so that no metric is lost.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

OTHER_TITLE = "Other"
"""Title of the section of metrics that no section declares."""


class Metric(NamedTuple):
    """The label of a metric.

    Attributes:
      label: name of the metric for readers.
      better: whether higher or lower values are better; "" if neither is.
      unit: unit, range or reference value, printed in parentheses after the label; "" for none.
      needs: names of the networks that the metric depends on, as fields of `Params`. The metric is left out of the
        report if one of these networks is not trained.
    """

    label: str
    better: Literal["higher", "lower", ""] = ""
    unit: str = ""
    needs: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Return the label, followed by an arrow for the better direction and by the unit."""
        arrow = {"higher": " ↑", "lower": " ↓", "": ""}[self.better]
        return f"{self.label}{arrow}{f' ({self.unit})' if self.unit else ''}"


class Group(NamedTuple):
    """What several metrics were measured on, such as a kind of samples or a set of examples.

    Attributes:
      label: name of the group for readers.
      needs: names of the networks that all metrics of the group depend on, as in `Metric`.
    """

    label: str
    needs: tuple[str, ...] = ()


class Section(NamedTuple):
    """The declaration of one section of a report, with one table of metrics by group.

    Attributes:
      title: heading of the section and of its table.
      note: a few sentences that tell readers how to read the table.
      metrics: the metrics by key. A key contains "{group}" exactly once, in place of the group's name, such as
        "reconstruction/{group}/mse".
      groups: the groups by their names in keys.
      other_groups: label of groups that are not in `groups`, with "{}" in place of the group's name. None: the section
        has no other groups.
      groups_are: "columns" if the table has a column per group and a row per metric; "rows" for the reverse.
    """

    title: str
    note: str = ""
    metrics: Mapping[str, Metric] = {}
    groups: Mapping[str, Group] = {}
    other_groups: str | None = None
    groups_are: Literal["columns", "rows"] = "columns"

    def find(self, key: str) -> tuple[Metric, Group] | None:
        """Return the metric and the group of a key, or None if this section does not declare the key."""
        for pattern, metric in self.metrics.items():
            before, after = pattern.split("{group}")
            name = key[len(before) : len(key) - len(after)]
            if not name or key != before + name + after:
                continue
            if name in self.groups:
                return metric, self.groups[name]
            if self.other_groups is not None:
                is_source = ":" in name  # data sources are shown as users write them
                return metric, Group(self.other_groups.format(name if is_source else name.replace("_", " ")))
        return None


class Table(NamedTuple):
    """A table of text.

    Attributes:
      columns: headings of the columns.
      rows: the cells of each row, by the heading of the row. A dash stands for a missing number.
    """

    columns: list[str]
    rows: dict[str, list[str]]


class Block(NamedTuple):
    """One section of a report with its content.

    Attributes:
      title: heading of the section.
      note: a few sentences that tell readers how to read the table; "" without a table.
      table: the table, or None if the section has no metrics.
      figures: (path of a PNG file, caption) of each figure.
    """

    title: str
    note: str
    table: Table | None
    figures: list[tuple[Any, str]]


def lay_out(
    sections: Sequence[Section], metrics: Mapping[str, Any], figures: Mapping[str, list[tuple[Any, str]]] | None = None
) -> list[Block]:
    """Distribute metrics and figures among the sections.

    Blocks have the order of `sections`. The rows and columns of a table have the order in which their metrics and
    groups first appear in `metrics`.

    Args:
      sections: the sections, whose titles are unique.
      metrics: numbers by key.
      figures: (path, caption) of each figure, by the title of the section.

    Returns:
      A block for each section that has metrics or figures, and a last block for metrics that no section declares.
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
    """Return the table of values that are given by (heading of the row, heading of the column)."""
    rows, columns = _unique(row for row, _ in values), _unique(column for _, column in values)
    return Table(columns, {row: [number(values.get((row, column))) for column in columns] for row in rows})


def _unique(names: Iterable[str]) -> list[str]:
    """Return the names without repetitions, in the order of their first appearance."""
    return list(dict.fromkeys(names))


def number(value: Any) -> str:
    """Return a number as text with about four significant digits, or a dash for None."""
    if value is None:
        return "-"
    if not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
