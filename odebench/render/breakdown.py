"""What each attack, or each train seed, shows by itself: a row of each per model and horizon, a column per epsilon."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from odebench.io.text import fill
from odebench.leaderboard.build import attack_label, build_tables, train_seed
from odebench.leaderboard.grouping import group
from odebench.leaderboard.selection import Selection
from odebench.leaderboard.table import Cell, Row, Table
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import radius
from odebench.render.markdown_tables import escape, grid, horizon_name

ALL = "all"
LABEL_WIDTH = 24


@dataclass(frozen=True)
class Breakdown:
    """What results are taken apart by: its `name`, the part of a result, and that of a cell made of one part."""

    name: str
    part: Callable[[StoredResult], str]
    part_of_cell: Callable[[Cell], str]
    legend: str


_FIGURES = "Robust accuracy in percent with half the width of its 95% interval, "
BREAKDOWNS = {
    "attack": Breakdown(
        "attack",
        attack_label,
        lambda cell: ", ".join(cell.attacks),
        f'{_FIGURES}under each attack alone and, in the rows "{ALL}", where an image counts as robust only if it '
        "withstood all of them. n is the most images of an attack; one that was run on fewer counts on these. "
        "Results of one attack with other parameters are one row.",
    ),
    "seed": Breakdown(
        "train seed",
        train_seed,
        lambda cell: f"seed {next(iter(cell.files))}",
        f'{_FIGURES}of each train seed alone, over its images, and, in the rows "{ALL}", in the mean over train seeds.',
    ),
}
"""By the word of `odebench leaderboard --by`."""
_Data = tuple[str, str, str, str]
_Key = tuple[object, float | None]


@dataclass
class _Found:
    """The cells of one model and horizon, by attack and epsilon."""

    row: Row
    cells: dict[str, dict[float, Cell]] = field(default_factory=dict)


def tables_apart(stored: Sequence[StoredResult], selection: Selection, by: Breakdown) -> list[Table]:
    """The tables of each part alone, as if there were no results of others; nothing in them is ranked by all."""
    parts = group(sorted(stored, key=by.part), by.part)
    return selection.tables([table for same in parts.values() for table in build_tables(same)[0]])


def with_train_seeds(tables: Sequence[Table]) -> list[Table]:
    """Tables of single train seeds, with the seed among the arguments of each row."""
    return [replace(table, rows=tuple(map(_with_train_seed, table.rows))) for table in tables]


def _with_train_seed(row: Row) -> Row:
    seed = json.loads(next(iter(next(iter(row.cells.values())).files)))
    return replace(row, arguments={**row.arguments, "train_seed": seed})


def breakdown_markdown(
    stored: Sequence[StoredResult], tables: Sequence[Table], selection: Selection, by: Breakdown
) -> str:
    """A table for each data set and norm of `tables`, which are those of all parts together."""
    found: dict[_Data, dict[_Key, _Found]] = {}
    for label, some in [(None, tables), (ALL, tables_apart(stored, selection, by))]:
        for table in some:
            rows = found.setdefault(_data(table), {})
            for row in table.rows:
                for horizon, cell in row.cells.items():
                    one = rows.setdefault((row.identity, horizon), _Found(row))
                    name = ALL if label is None else by.part_of_cell(cell)
                    one.cells.setdefault(name, {})[table.epsilon] = cell
    parts = [f"# Results by {by.name}", ""]
    for data, rows in found.items():
        parts += [f"## {data[0]} ({data[1]}), {data[3]}", "", *_lines(list(rows.values()), by), ""]
    return "\n".join([*parts, fill(by.legend), ""])


def _lines(rows: Sequence[_Found], by: Breakdown) -> list[str]:
    radii = sorted({epsilon for one in rows for cells in one.cells.values() for epsilon in cells})
    lines = []
    for one in sorted(rows, key=lambda each: (each.row.label, _horizon(each) or 0)):
        horizon = _horizon(one)
        label = one.row.label if horizon is None else f"{one.row.label}, {horizon_name(horizon)}"
        lines += [(escape(text), *[""] * (len(radii) + 1)) for text in textwrap.wrap(label, LABEL_WIDTH)]
        for part, cells in sorted(one.cells.items(), key=lambda pair: (pair[0] == ALL, _natural(pair[0]))):
            cell = next(iter(cells.values()))
            lines.append((f"- {escape(part)}", str(cell.n), *(_robust(cells.get(epsilon)) for epsilon in radii)))
    return grid((f"model, - {by.name}", "n", *map(radius, radii)), lines, left=(0,))


def _horizon(found: _Found) -> float | None:
    return next(iter(next(iter(found.cells.values())).values())).horizon


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text)]


def _robust(cell: Cell | None) -> str:
    if cell is None:
        return ""
    figure = cell.robust_accuracy
    return f"{100 * figure.value:.1f} ± {50 * (figure.high - figure.low):.1f}"


def _data(table: Table) -> _Data:
    return table.dataset, table.split, table.dataset_sha256, table.norm
