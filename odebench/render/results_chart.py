"""A chart of any results, as SVG or PNG: accuracy against horizon, and security curves. Unranked points are hollow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from odebench.errors import UsageError
from odebench.leaderboard.grouping import group
from odebench.leaderboard.table import Cell, Row, Table, in_order
from odebench.protocol.spec import middle, radius
from odebench.render.chart_data import COLOURS
from odebench.render.markdown_tables import horizon_name
from odebench.result.schema import Figure

_SUFFIXES = (".svg", ".png")
_WIDTH, _HEIGHT, _PER_ROW = 300, 240, 3
EPSILON = "epsilon"
"""The name of the axis that is drawn to scale; horizons stand side by side, beside what has none."""
_UNRANKED = " (unranked)"
_Mark = dict[str, Any]


def check_chart_file(path: Path) -> None:
    """Raises UsageError for a file that is neither SVG nor PNG."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--chart draws SVG and PNG: name a file such as {path.stem or 'chart'}.svg, not {path}")


def results_chart(tables: Sequence[Table], path: Path) -> bytes:
    """The chart of the tables in the format of the file's suffix. Raises UsageError where there is nothing to draw."""
    import vl_convert

    if not tables:
        raise UsageError("there are no results to draw")
    specification = chart_specification(tables)
    if path.suffix.lower() == ".png":
        png: bytes = vl_convert.vegalite_to_png(specification, scale=2)
        return png
    svg: str = vl_convert.vegalite_to_svg(specification)
    return svg.encode()


def chart_specification(tables: Sequence[Table]) -> _Mark:
    """The chart as Vega-Lite: for each data set and norm clean and robust accuracy against horizon at the middle
    epsilon, then robust accuracy against epsilon at each horizon. What has one epsilon alone has no curve over it, and
    what has one horizon and several epsilons none over horizons."""
    import altair

    names = sorted({_name(row) for table in tables for row in table.usual})
    rows: list[_Mark] = []
    for (dataset, split, _, norm), some in group(tables, _data).items():
        same = sorted(some, key=lambda table: table.epsilon)
        where = f"{dataset}{'' if split == 'test' else f' ({split})'}, {norm}"
        at = middle(same)
        horizons = in_order({cell for table in same for row in table.usual for cell in row.cells})
        over_horizons = [
            _panel(f"{where}: clean", "time horizon T", _horizon_marks(at, lambda cell: cell.clean_accuracy), names),
            _panel(
                f"{where}, epsilon {radius(at.epsilon)}: robust",
                "time horizon T",
                _horizon_marks(at, lambda cell: cell.robust_accuracy),
                names,
            ),
        ]
        panels = over_horizons if len(horizons) > 1 or len(same) == 1 else []
        for horizon in horizons if len(same) > 1 else ():
            title = f"{where}: {'no horizon' if horizon is None else horizon_name(horizon)}"
            panels.append(_panel(title, EPSILON, _security_marks(same, horizon), names))
        rows += [{"hconcat": panels[at : at + _PER_ROW]} for at in range(0, len(panels), _PER_ROW)]
    return {
        "$schema": altair.SCHEMA_URL,
        "title": {
            "text": "Accuracy under all attacks run on each model",
            "subtitle": "bars: 95% intervals; hollow: unranked, without a worst-case result or not examined",
            "anchor": "start",
        },
        "vconcat": rows,
        "background": "white",
        "config": {"legend": {"title": None, "orient": "bottom", "columns": 4, "labelLimit": 280}},
    }


def _panel(title: str, x_name: str, marks: list[_Mark], names: Sequence[str]) -> _Mark:
    labels = {mark["order"]: mark["x"] for mark in sorted(marks, key=lambda mark: mark["order"])}
    axis: _Mark = {"labelAngle": 0}
    if x_name == EPSILON:
        text = "".join(f"abs(datum.value - {at!r}) < 1e-9 ? '{label}' : " for at, label in labels.items())
        axis |= {"values": list(labels), "labelExpr": f"{text}''", "grid": False, "labelOverlap": "greedy"}
        x = {"field": "order", "type": "quantitative", "title": x_name, "axis": axis}
    else:
        x = {"field": "x", "type": "ordinal", "sort": list(labels.values()), "title": x_name, "axis": axis}
    y = {"field": "y", "type": "quantitative", "title": "accuracy, %", "scale": {"domain": [0, 100]}}
    scale = {"domain": list(names), "range": [COLOURS[at % len(COLOURS)][0] for at in range(len(names))]}
    colour = {"field": "model", "type": "nominal", "scale": scale}
    point = {"x": x, "y": y, "stroke": colour, "detail": {"field": "model"}}
    low, high = {"field": "low", "type": "quantitative"}, {"field": "high"}
    ranked = {"condition": {"test": "datum.ranked", **colour}, "value": "white"}
    return {
        "title": title,
        "width": _WIDTH,
        "height": _HEIGHT,
        "data": {"values": marks},
        "layer": [
            {"mark": {"type": "line", "opacity": 0.8}, "encoding": {"x": x, "y": y, "color": colour}},
            {
                "mark": {"type": "rule", "opacity": 0.5},
                "encoding": {
                    "x": x,
                    "y": low,
                    "y2": high,
                    "color": colour,
                },
            },
            {
                "mark": {"type": "point", "size": 60, "filled": False, "strokeWidth": 2, "opacity": 1},
                "encoding": {**point, "fill": ranked},
            },
        ],
    }


def _horizon_marks(table: Table, share: Callable[[Cell], Figure]) -> list[_Mark]:
    return [
        _mark(row, cell, share(cell), x="none" if horizon is None else f"{horizon:g}", order=horizon or float("inf"))
        for row in table.usual
        for horizon, cell in row.cells.items()
    ]


def _security_marks(tables: Sequence[Table], horizon: float | None) -> list[_Mark]:
    """Clean accuracy at epsilon 0, then robust accuracy."""
    marks: dict[tuple[str, float], _Mark] = {}
    for table in tables:
        for row in table.usual:
            cell = row.cells.get(horizon)
            if cell is not None:
                marks.setdefault((_name(row), 0.0), _mark(row, cell, cell.clean_accuracy, x="0", order=0.0))
                shown = _mark(row, cell, cell.robust_accuracy, x=radius(table.epsilon), order=table.epsilon)
                marks[_name(row), table.epsilon] = shown
    return list(marks.values())


def _mark(row: Row, cell: Cell, figure: Figure, *, x: str, order: float) -> _Mark:
    values = {"y": figure.value, "low": figure.low, "high": figure.high}
    percent = {name: round(100 * value, 3) for name, value in values.items()}
    return {"model": _name(row), "ranked": cell.ranked, "x": x, "order": min(order, 1e9), **percent}


def _name(row: Row) -> str:
    return row.name + ("" if row.best is not None else _UNRANKED)


def _data(table: Table) -> tuple[str, str, str, str]:
    return table.dataset, table.split, table.dataset_sha256, table.norm
