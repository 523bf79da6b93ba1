"""The charts of the leaderboard as values: panels of lines with intervals."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from odebench.leaderboard.table import Cell, Row, Table, in_order
from odebench.protocol.spec import middle, radius
from odebench.result.schema import Figure

COLOURS = (
    *(("#0072b2", "#4aa3e8"), ("#c75300", "#ff8a3d"), ("#00855f", "#2fc795"), ("#b3558a", "#e394c3")),
    *(("#a87400", "#e6b23a"), ("#1f88c4", "#7cc9f5"), ("#000000", "#f2f2f2"), ("#8c564b", "#c99387")),
    *(("#737373", "#a3a3a3"), ("#7d7e00", "#cccd3c")),
)
"""Of lines, on a light and on a dark page: Okabe and Ito's hues, which colour-blind readers can distinguish, and four
more, all with a contrast of 3 at least."""
SHAPES = (
    "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z",
    "M-4.5-4.5h9v9h-9Z",
    "M0-6 5.5 4.5h-11Z",
    "M0-6.5 5.5 0 0 6.5-5.5 0Z",
    "M0 6 5.5-4.5h-11Z",
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4Z",
)
"""Of marks, as SVG paths around the origin."""


def style_of(place: int) -> tuple[int, str]:
    """The colour, as a place in COLOURS, and the shape of a line by its place among all known lines."""
    return place % len(COLOURS), SHAPES[place % len(SHAPES)]


@dataclass(frozen=True)
class Point:
    """An accuracy with its interval, and its cell; `x` is null for a model without a horizon."""

    x: float | None
    share: Figure
    cell: Cell


@dataclass(frozen=True)
class Line:
    """A model's points by rising x; one point without x is a level line. `name` is the model with its settings, or
    after `shown_together` the model alone."""

    name: str
    model: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """Lines over one axis."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Chart:
    """Rows of panels with one legend. `doubling`: x has a logarithmic scale.

    `names` are all lines in the order of the legend; `known` are those of all charts shown together, sorted, so that a
    line has one colour and shape in all of them, whatever its rank. `name` is the name of the file without its suffix.
    """

    name: str
    title: str
    subtitle: str
    x_name: str
    doubling: bool
    names: tuple[str, ...]
    known: tuple[str, ...]
    rows: tuple[tuple[Panel, ...], ...]


def style(chart: Chart, name: str) -> tuple[int, str]:
    """The colour and shape of a line (see style_of), the same in all charts shown together."""
    return style_of(chart.known.index(name))


def file_stem(table: Table) -> str:
    """The beginning of the file names of a data set's charts."""
    parts = [table.dataset, *([] if table.split == "test" else [table.split])]
    return "-".join([*parts, *([table.dataset_sha256[:12]] if table.name_is_shared else [])])


def horizon_chart(tables: Sequence[Table]) -> Chart | None:
    """Accuracy against horizon of one data set's ranked models, with their usual solver, at the horizons of their
    training: clean, and in the worst case at the middle epsilon of each norm. None where nothing is ranked."""
    middles = [middle(same) for same in _norms(tables).values()]
    if not middles:
        return None
    names = _names(middles)
    radii = ", ".join(f"{table.norm} epsilon {radius(table.epsilon)}" for table in middles)
    clean = Panel("clean images", _lines(middles[0], names, clean=True))
    worst = [
        Panel(f"worst case, {table.norm}, epsilon {radius(table.epsilon)}", _lines(table, names, clean=False))
        for table in middles
    ]
    return Chart(
        name=f"{file_stem(tables[0])}-accuracy",
        title=f"{tables[0].dataset}: accuracy against time horizon T ({_images(middles)}; {radii})",
        subtitle=_subtitle(middles, dashed=True),
        x_name="time horizon T",
        doubling=True,
        names=names,
        known=tuple(sorted(_names(tables))),
        rows=((clean, *worst),),
    )


def security_chart(tables: Sequence[Table]) -> Chart | None:
    """Robust accuracy against epsilon of one data set's ranked models: one row per norm and one panel per horizon, with
    the models without a horizon in each. None where nothing is ranked."""
    norms = _norms(tables)
    if not norms:
        return None
    every = [table for same in norms.values() for table in same]
    names = _names(every)
    rows = []
    for norm, same in norms.items():
        horizons = [h for h in in_order({cell.horizon for cell in _all_cells(same)}) if h is not None]
        panels = [Panel(f"{norm}, T={horizon:g}", _security_lines(same, names, horizon)) for horizon in horizons]
        rows.append(tuple(panels or [Panel(norm, _security_lines(same, names, None))]))
    return Chart(
        name=f"{file_stem(tables[0])}-security",
        title=f"{tables[0].dataset}: robust accuracy against epsilon ({_images(every)})",
        subtitle=_subtitle(every, dashed=False),
        x_name="epsilon",
        doubling=False,
        names=names,
        known=tuple(sorted(_names(tables))),
        rows=tuple(rows),
    )


def shown_together(charts: Sequence[Chart]) -> list[Chart]:
    """The charts of one page: a line has one colour and shape in all of them, and the name of its model alone where no
    other line is of that model; its settings are in the tables."""
    models = {line.name: line.model for chart in charts for row in chart.rows for panel in row for line in panel.lines}
    count = Counter(models.values())
    short = {name: model if count[model] == 1 else name for name, model in models.items()}
    if len(set(short.values())) < len(short):  # a model whose own name reads like another one with its settings
        short = {name: name for name in short}
    return [
        replace(
            chart,
            names=tuple(short[name] for name in chart.names),
            known=tuple(sorted(short.values())),
            rows=tuple(
                tuple(replace(p, lines=tuple(replace(line, name=short[line.name]) for line in p.lines)) for p in row)
                for row in chart.rows
            ),
        )
        for chart in charts
    ]


def _norms(tables: Sequence[Table]) -> dict[str, list[Table]]:
    """The tables with a ranked cell, by norm (linf first), epsilons rising."""
    ranked = [table for table in tables if _drawn(table)]
    norms = sorted({table.norm for table in ranked}, reverse=True)
    return {norm: sorted((t for t in ranked if t.norm == norm), key=lambda t: t.epsilon) for norm in norms}


def _drawn(table: Table) -> dict[str, Row]:
    """The row of each line, whose ranked cells are drawn: the usual row of each model."""
    return {row.name: row for row in table.usual if row.matched}


def _names(tables: Sequence[Table]) -> tuple[str, ...]:
    """All lines, best first, each once."""
    return tuple(dict.fromkeys(name for table in tables for name in _drawn(table)))


def _lines(table: Table, names: Sequence[str], *, clean: bool) -> tuple[Line, ...]:
    drawn = _drawn(table)
    rows = [(name, drawn[name]) for name in names if name in drawn]
    share = operator.attrgetter("clean_accuracy" if clean else "robust_accuracy")
    return tuple(
        Line(name, row.model, tuple(Point(cell.horizon, share(cell), cell) for cell in row.matched))
        for name, row in rows
    )


def _security_lines(tables: Sequence[Table], names: Sequence[str], horizon: float | None) -> tuple[Line, ...]:
    """Clean accuracy at epsilon 0, then robust accuracy, of the models at this horizon and of those without one."""
    points: dict[str, list[Point]] = {}
    models: dict[str, str] = {}
    for table in tables:
        for name, row in _drawn(table).items():
            models[name] = row.model
            for cell in row.matched:
                if cell.horizon in (None, horizon):
                    line = points.setdefault(name, [Point(0.0, cell.clean_accuracy, cell)])
                    line.append(Point(table.epsilon, cell.robust_accuracy, cell))
    return tuple(Line(name, models[name], tuple(points[name])) for name in names if name in points)


def _subtitle(tables: Sequence[Table], *, dashed: bool) -> str:
    cells = _all_cells(tables)
    seeds = {cell.seeds for cell in cells}
    level = "; dashed: no horizon" if dashed and None in {cell.horizon for cell in cells} else ""
    return f"worst case over attacks; {_range(seeds)} train seed{'s' * (max(seeds) > 1)}; bars: 95% intervals{level}"


def _images(tables: Sequence[Table]) -> str:
    return f"{_range({cell.n for cell in _all_cells(tables)})} {tables[0].split} images"


def _all_cells(tables: Sequence[Table]) -> list[Cell]:
    return [cell for table in tables for row in _drawn(table).values() for cell in row.matched]


def _range(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
