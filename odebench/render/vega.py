"""One panel of a chart in Vega-Lite, for the SVG and for the page. Altair, an extra, is handed over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from odebench.protocol.spec import radius
from odebench.render.chart_data import Chart, Line, Panel, Point
from odebench.render.markdown_tables import horizon_name, nfe_text

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#000000", "#8c564b", "#7f7f7f", "#bcbd22"),
)
"""Okabe and Ito's colours, which colour-blind readers can distinguish, and four more."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
HEIGHT = 240
_APART = 0.11
"""The smallest distance of two labels, as a share of the axis."""
_STEPS = ((5, 40), (10, 80), (20, 100))
"""Percent from tick to tick, and the length of the longest axis with such ticks."""
HOVER = ("model", "at", "accuracy", "95% interval", "train seeds", "images", "NFE clean / attacked", "attacks")
"""What the page shows of a point under the pointer."""
Marks = list[dict[str, Any]]


def style(chart: Chart, name: str) -> tuple[str, str]:
    """The colour and shape of a line, the same in all charts shown together."""
    index = chart.known.index(name)
    return COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]


def panel_chart(
    altair: Any, chart: Chart, panel: Panel, data: dict[str, Marks], *, hover: bool = False
) -> dict[str, Any]:
    """A panel in Vega-Lite; its marks are added to `data` by name. With `hover` it is for the page: as wide as its
    place, with the tooltips of HOVER, and without a legend.

    Altair makes the layers; they are put together without it, because it copies and checks a chart each time that it
    becomes a part of another, which took a third of the time of drawing a board.
    """
    ticks = sorted({point.x for line in panel.lines for point in line.points if point.x is not None})
    places = {tick: math.log2(tick) if chart.doubling else tick for tick in ticks}
    without = [line for line in panel.lines if _is_level(line)]
    first, last = (min(places.values()), max(places.values())) if places else (0.0, 0.0)
    step = (last - first) / max(1, len(ticks) - 1) or 1.0
    aside = last + 0.9 * step if without else last
    labels = _labels(chart, places) | ({aside: "no T"} if without else {})
    domain = (first - 0.35 * step, aside + 0.35 * step) if chart.doubling else (-0.12 * step, last + 0.25 * step)
    marks = _marks(chart, panel, places, aside=aside, step=step)
    if hover:
        points = [point for _, line in _in_place(panel) for point in line.points]
        marks = [{**mark, **_said(chart, mark, point)} for mark, point in zip(marks, points, strict=True)]

    expression = " : ".join(f"abs(datum.value - ({place!r})) < 1e-9 ? '{label}'" for place, label in labels.items())
    axis = altair.Axis(
        values=list(labels), labelExpr=f"{expression} : ''", title=chart.x_name, gridOpacity=0.6, labelOverlap=False
    )
    x = altair.X("x:Q", axis=axis, scale=altair.Scale(domain=list(domain), nice=False, zero=False))
    heights = _heights(panel)
    y = altair.Y(
        "y:Q",
        axis=altair.Axis(title="accuracy, %", values=heights, tickCount=len(heights)),  # else Vega drops some of them
        scale=altair.Scale(domain=[heights[0], heights[-1]], nice=False),
    )
    names = list(chart.names)
    colours, shapes = zip(*(style(chart, name) for name in names), strict=True)
    legend: dict[str, Any] = {"legend": None} if hover else {}
    colour = altair.Color("line:N", scale=altair.Scale(domain=names, range=list(colours)), sort=names, **legend)
    shape = altair.Shape("line:N", scale=altair.Scale(domain=names, range=list(shapes)), sort=names, **legend)
    told: dict[str, Any] = {"tooltip": [altair.Tooltip(f"{name}:N") for name in HOVER]} if hover else {}
    name = f"panel {len(data)}"
    data[name] = marks
    base = altair.Chart(altair.NamedData(name=name))
    drawn, level = base.transform_filter("!datum.level"), base.transform_filter("datum.level")
    edges = [{**mark, "x": edge} for mark in marks if mark["level"] for edge in (domain[0], mark["x"])]
    data[f"{name} levels"] = edges
    levels_base = altair.Chart(altair.NamedData(name=f"{name} levels"))
    size = 75 if chart.doubling else 45
    layers = [
        levels_base.mark_line(strokeDash=[5, 4], strokeWidth=1.3, opacity=0.75).encode(x=x, y=y, color=colour),
        drawn.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        base.mark_rule(strokeWidth=1.6, opacity=0.8).encode(
            x=x, y=altair.Y("low:Q"), y2="high:Q", color=colour, **told
        ),
        drawn.mark_point(filled=True, size=size, opacity=1).encode(x=x, y=y, color=colour, shape=shape, **told),
        level.mark_point(filled=True, size=size, opacity=1).encode(x=x, y=y, color=colour, shape=shape, **told),
    ]
    width: int | str = "container" if hover else {1: 420, 2: 360, 3: 270}.get(len(chart.rows[0]), 210)
    return {
        "layer": [
            # without the keys that only a whole chart may have
            {key: value for key, value in layer.to_dict(validate=False).items() if key not in ("$schema", "config")}
            for layer in layers
        ],
        "width": width,
        "height": HEIGHT,
        "title": panel.title,
    }


def _labels(chart: Chart, places: Mapping[float, float]) -> dict[float, str]:
    """The label at each place; empty where it would touch the label to the right."""
    labels: dict[float, str] = {}
    shown = math.inf
    span = max(places.values(), default=0.0) - min(places.values(), default=0.0)
    for tick, place in sorted(places.items(), reverse=True):
        fits = shown - place >= _APART * span
        labels[place] = _tick(tick, chart) if fits else ""
        shown = place if fits else shown
    return dict(sorted(labels.items()))


def _marks(chart: Chart, panel: Panel, places: Mapping[float, float], *, aside: float, step: float) -> Marks:
    """Every point with its place. Lines are shifted a little, so that their intervals do not cover each other."""
    marks = []
    count = {level: sum(level is other for other, _ in _in_place(panel)) for level in (False, True)}
    seen = {False: 0, True: 0}
    for level, line in _in_place(panel):
        gap = min(0.09, 0.5 / count[level]) * step if chart.doubling else 0.025 * step
        shift = (seen[level] - (count[level] - 1) / 2) * gap
        seen[level] += 1
        for point in line.points:
            place = aside if point.x is None else places[point.x]
            values = {"y": point.share.value, "low": point.share.low, "high": point.share.high}
            marks.append(
                {
                    "line": line.name,
                    "level": point.x is None,
                    "x": round(place + shift, 6),
                    **{name: round(100 * value, 4) for name, value in values.items()},
                }
            )
    return marks


def _in_place(panel: Panel) -> list[tuple[bool, Line]]:
    """The lines in the order in which they are shifted, those without a horizon (true) last."""
    return sorted(((_is_level(line), line) for line in panel.lines), key=lambda pair: pair[0])


def _said(chart: Chart, mark: Mapping[str, Any], point: Point) -> dict[str, str]:
    cell = point.cell
    horizon = horizon_name(cell.horizon)
    at = horizon if chart.doubling else f"{horizon}, epsilon {_tick(point.x or 0.0, chart)}"
    values = (
        *(str(mark["line"]), at, f"{mark['y']:.1f} %", f"{mark['low']:.1f} to {mark['high']:.1f} %"),
        *(str(cell.seeds), str(cell.n), nfe_text(cell) or "no field", ", ".join(cell.attacks)),
    )
    return dict(zip(HOVER, values, strict=True))


def _is_level(line: Line) -> bool:
    return all(point.x is None for point in line.points)


def _heights(panel: Panel) -> list[int]:
    """The ticks of the axis in percent, around all intervals. The axis ends at ticks, so that all titles are level."""
    shares = [point.share for line in panel.lines for point in line.points]
    low = 0.0 if panel.full else min(99.0, 100 * min(share.low for share in shares))
    high = max(low + 1, 100 * max(share.high for share in shares))
    step = next(step for step, most in _STEPS if high - low <= most)
    return list(range(step * math.floor(low / step), min(100, step * math.ceil(high / step)) + 1, step))


def _tick(value: float, chart: Chart) -> str:
    return f"{value:g}" if chart.doubling or value == 0 else radius(value)
