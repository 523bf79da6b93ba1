"""The figures that the page shows, as one table of plain values, and the views that they are shown in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from odebench.leaderboard.build import attack_label, build_tables
from odebench.leaderboard.grouping import group
from odebench.leaderboard.rank import decided
from odebench.leaderboard.table import Cell, Row, Table
from odebench.protocol.spec import middle, radius
from odebench.render.chart_data import file_stem, style_of
from odebench.render.markdown_tables import attack_names, credit_texts
from odebench.render.records import FIELDS, record_of, with_ranks

UNION = "union of all"
COLUMNS = (*FIELDS, "data", "label", "line", "attack", "tried", "credited", "file")
"""Those of records.FIELDS; then the data set as a tab names it, the model as the table names it, the line of the charts
that a figure is a point of (null: of none), the attack or UNION, the attacks with the seeds and images they were run
on, who made candidates, and the address of the result file."""

Link = Callable[[Path], str]
"""The address of a result file, as seen from the page."""
Values = dict[str, Any]


def figure_values(tables: Sequence[Table], link: Link) -> Values:
    """One row a figure, by `columns`: first the union of all attacks, as the tables have it, then each attack alone;
    and the meaning of each flag."""
    # tables of few results have shorter labels: those of the union are shown throughout
    rows = [(table, row, rank) for table in tables for row, rank in with_ranks(table)]
    labels: dict[tuple[str, object], str] = {}
    for table, row, _ in rows:
        labels[_key(table, row)] = max(labels.get(_key(table, row), ""), row.label, key=len)
    usual = {_key(table, row) for table in tables for row in table.usual}
    notes = {flag: why for _, row, _ in rows for cell in row.cells.values() for flag, why in cell.flags.items()}
    found = [
        _figure(table, row, cell, rank, UNION, (labels[_key(table, row)], _key(table, row) in usual), link)
        for table, row, rank in rows
        for cell in row.cells.values()
    ]
    kept = {item.path: item for _, row, _ in rows for cell in row.cells.values() for item in cell.results}
    for attack, items in sorted(group(kept.values(), attack_label).items()):
        for table in build_tables(items)[0]:
            for row in table.rows:
                for cell in row.cells.values():
                    notes |= cell.flags
                    named = (labels.get(_key(table, row), row.label), _key(table, row) in usual)
                    found.append(_figure(table, row, cell, None, attack, named, link))
    return {"columns": list(COLUMNS), "rows": [[figure[name] for name in COLUMNS] for figure in found], "notes": notes}


def _key(table: Table, row: Row) -> tuple[str, object]:
    """What a model is told apart by on one data set."""
    return table.dataset_sha256, row.identity


def _figure(
    table: Table, row: Row, cell: Cell, rank: int | None, attack: str, named: tuple[str, bool], link: Link
) -> Values:
    label, usual = named
    drawn = usual and cell.train_horizon == cell.horizon
    alone = attack != UNION
    return record_of(table, row, cell, rank) | {
        "data": file_stem(table),
        "label": label,
        "line": row.name if drawn else None,
        "attack": attack,
        "ranked": cell.ranked and not alone,
        "tried": [] if alone else attack_names(cell),
        "credited": [] if alone else credit_texts(cell),
        "file": link(next(iter(cell.files.values()))),
    }


def view_values(tables: Sequence[Table]) -> list[Values]:
    """The data sets, that with the most models first; of each its norms with their radii, and which is the middle."""
    found = []
    for name, same in group(tables, file_stem).items():
        norms = group(sorted(same, key=lambda table: table.norm != "linf"), lambda table: table.norm)
        found.append(
            {
                "data": name,
                "models": max(len(table.usual) for table in same),
                "norms": [
                    {
                        "norm": norm,
                        "epsilons": [
                            {"value": table.epsilon, "text": radius(table.epsilon), "decided": decided(table)}
                            for table in of_norm
                        ],
                        "middle": middle(of_norm).epsilon,
                    }
                    for norm, of_norm in norms.items()
                ],
            }
        )
    return sorted(found, key=lambda view: (-view["models"], view["data"]))


def line_styles(tables: Sequence[Table]) -> list[Values]:
    """The lines of the charts, each with the name that is shown, the number of its colour, and its shape: the model
    alone where no other line is of that model."""
    models: Mapping[str, str] = {row.name: row.model for table in tables for row in table.usual}
    count = Counter(models.values())
    shown = {line: model if count[model] == 1 else line for line, model in models.items()}
    if len(set(shown.values())) < len(shown):  # a model whose own name reads like another one with its settings
        shown = {line: line for line in shown}
    styles = {line: style_of(place) for place, line in enumerate(sorted(shown, key=lambda line: shown[line]))}
    return [
        {"line": line, "name": shown[line], "colour": colour, "shape": shape}
        for line, (colour, shape) in styles.items()
    ]
