"""What each attack found by itself: a row per attack on each model and horizon, a column per epsilon."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from odebench.io.text import fill
from odebench.leaderboard.build import attack_label, build_tables
from odebench.leaderboard.grouping import group
from odebench.leaderboard.selection import Selection
from odebench.leaderboard.table import Cell, Row, Table
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import radius
from odebench.render.markdown_tables import escape, grid, horizon_name

ALL = "all"
LABEL_WIDTH = 24
LEGEND = (
    "Robust accuracy in percent with half the width of its 95% interval, under each attack alone and, in the rows "
    f'"{ALL}", where an image counts as robust only if it withstood all of them.'
)
_Data = tuple[str, str, str, str]
_Key = tuple[object, float | None]


@dataclass
class _Found:
    """The cells of one model and horizon, by attack and epsilon."""

    row: Row
    cells: dict[str, dict[float, Cell]] = field(default_factory=dict)


def tables_by_attack(stored: Sequence[StoredResult], selection: Selection) -> list[Table]:
    """The tables of each attack alone, as if there were no results of others; nothing in them is ranked by all."""
    attacks = group(sorted(stored, key=attack_label), attack_label)
    return selection.tables([table for same in attacks.values() for table in build_tables(same)[0]])


def by_attack_markdown(stored: Sequence[StoredResult], tables: Sequence[Table], selection: Selection) -> str:
    """A table for each data set and norm of `tables`, which are those of all attacks together."""
    found: dict[_Data, dict[_Key, _Found]] = {}
    for label, some in [(None, tables), (ALL, tables_by_attack(stored, selection))]:
        for table in some:
            rows = found.setdefault(_data(table), {})
            for row in table.rows:
                for horizon, cell in row.cells.items():
                    one = rows.setdefault((row.identity, horizon), _Found(row))
                    name = ALL if label is None else ", ".join(cell.attacks)
                    one.cells.setdefault(name, {})[table.epsilon] = cell
    parts = ["# Results by attack", ""]
    for data, rows in found.items():
        parts += [f"## {data[0]} ({data[1]}), {data[3]}", "", *_lines(list(rows.values())), ""]
    return "\n".join([*parts, fill(LEGEND), ""])


def _lines(rows: Sequence[_Found]) -> list[str]:
    radii = sorted({epsilon for one in rows for cells in one.cells.values() for epsilon in cells})
    lines = []
    for one in sorted(rows, key=lambda each: (each.row.label, next(iter(each.cells[ALL].values())).horizon or 0)):
        horizon = next(iter(one.cells[ALL].values())).horizon
        label = one.row.label if horizon is None else f"{one.row.label}, {horizon_name(horizon)}"
        lines += [(escape(part), *[""] * (len(radii) + 1)) for part in textwrap.wrap(label, LABEL_WIDTH)]
        for attack, cells in sorted(one.cells.items(), key=lambda pair: (pair[0] == ALL, pair[0])):
            cell = next(iter(cells.values()))
            lines.append((f"- {escape(attack)}", str(cell.n), *(_robust(cells.get(epsilon)) for epsilon in radii)))
    return grid(("model, - attack", "n", *map(radius, radii)), lines, left=(0,))


def _robust(cell: Cell | None) -> str:
    if cell is None:
        return ""
    figure = cell.robust_accuracy
    return f"{100 * figure.value:.1f} ± {50 * (figure.high - figure.low):.1f}"


def _data(table: Table) -> _Data:
    return table.dataset, table.split, table.dataset_sha256, table.norm
