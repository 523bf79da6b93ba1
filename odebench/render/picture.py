"""The pictures of the leaderboard as SVG, with the extra `chart` (altair and vl-convert)."""

from __future__ import annotations

import math
import re
from importlib.util import find_spec
from typing import Any

from odebench.errors import UsageError
from odebench.render.markdown import radius
from odebench.render.panel import Line, Panel, Picture

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#000000", "#8c564b", "#7f7f7f", "#bcbd22"),
)
"""Okabe and Ito's, which colour-blind readers tell apart, and four more."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
HEIGHT = 240
_DIGEST = re.compile(r"<metadata>results sha256 ([0-9a-f]{64})</metadata>")
Marks = list[dict[str, Any]]


def check_pictures() -> None:
    """Raises UsageError, before anything is written, where no picture could be drawn."""
    if missing := [name for name in ("altair", "vl_convert") if find_spec(name) is None]:
        raise UsageError(f"the pictures need {' and '.join(missing)}: pip install 'odebench[chart]'")


def picture_svg(picture: Picture, results_sha256: str) -> str:
    """The picture, with the digest of the results that it shows embedded. It needs the extra `chart`."""
    import altair
    import vl_convert

    data: dict[str, Marks] = {}  # by name and added at the end, since altair copies what is inline over and over
    rows = [
        altair.hconcat(*(_panel(altair, picture, panel, data) for panel in row), spacing=30) for row in picture.rows
    ]
    title = altair.TitleParams(
        picture.title, subtitle=picture.subtitle, anchor="start", fontSize=16, subtitleFontSize=12, offset=12
    )
    whole = (
        altair.vconcat(*rows, spacing=24)
        .properties(title=title, background="white", padding=12)
        .configure_view(stroke="#cccccc")
        .configure_axis(grid=True, gridColor="#e8e8e8", labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_title(fontSize=13, fontWeight="normal")
        .configure_legend(
            labelFontSize=13,
            symbolSize=110,
            title=None,
            orient="bottom",
            direction="horizontal",
            columns=6,
            labelLimit=240,
            rowPadding=6,
            symbolOpacity=1,
        )
    )
    svg: str = vl_convert.vegalite_to_svg({**whole.to_dict(), "datasets": data})
    head, bracket, rest = svg.partition(">")
    return f"{head}{bracket}<metadata>results sha256 {results_sha256}</metadata>{rest.rstrip()}\n"


def embedded_sha256(svg: str) -> str | None:
    """The digest of the results that a picture shows; None where there is none."""
    found = _DIGEST.search(svg)
    return None if found is None else found[1]


def _panel(altair: Any, picture: Picture, panel: Panel, data: dict[str, Marks]) -> Any:
    ticks = sorted({point.x for line in panel.lines for point in line.points if point.x is not None})
    places = {tick: math.log2(tick) if picture.doubling else tick for tick in ticks}
    without = [line for line in panel.lines if _is_level(line)]
    first, last = (min(places.values()), max(places.values())) if places else (0.0, 0.0)
    step = (last - first) / max(1, len(ticks) - 1) or 1.0
    aside = last + 0.9 * step if without else last
    labels = {place: _tick(tick, picture) for tick, place in places.items()} | ({aside: "no T"} if without else {})
    domain = (first - 0.35 * step, aside + 0.35 * step) if picture.doubling else (-0.12 * step, last + 0.25 * step)
    marks = _marks(picture, panel, places, aside=aside, step=step)

    expression = " : ".join(f"abs(datum.value - ({place!r})) < 1e-9 ? '{label}'" for place, label in labels.items())
    axis = altair.Axis(
        values=list(labels), labelExpr=f"{expression} : ''", title=picture.x_name, gridOpacity=0.6, labelOverlap=False
    )
    x = altair.X("x:Q", axis=axis, scale=altair.Scale(domain=list(domain), nice=False, zero=False))
    low, high = _range(panel)
    y = altair.Y("y:Q", axis=altair.Axis(title="accuracy, %"), scale=altair.Scale(domain=[low, high], nice=False))
    names = list(picture.names)
    colour = altair.Color(
        "line:N",
        scale=altair.Scale(domain=names, range=[COLOURS[i % len(COLOURS)] for i in range(len(names))]),
        sort=names,
    )
    shape = altair.Shape(
        "line:N",
        scale=altair.Scale(domain=names, range=[SHAPES[i % len(SHAPES)] for i in range(len(names))]),
        sort=names,
    )
    name = f"panel {len(data)}"
    data[name] = marks
    chart = altair.Chart(altair.NamedData(name=name))
    drawn, level = chart.transform_filter("!datum.level"), chart.transform_filter("datum.level")
    edges = [{**mark, "x": edge} for mark in marks if mark["level"] for edge in (domain[0], mark["x"])]
    data[f"{name} levels"] = edges
    begin = altair.Chart(altair.NamedData(name=f"{name} levels"))
    size = 75 if picture.doubling else 45
    layers = [
        begin.mark_line(strokeDash=[5, 4], strokeWidth=1.3, opacity=0.75).encode(x=x, y=y, color=colour),
        drawn.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        chart.mark_rule(strokeWidth=1.6, opacity=0.8).encode(x=x, y=altair.Y("low:Q"), y2="high:Q", color=colour),
        drawn.mark_point(filled=True, size=size, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        level.mark_point(filled=True, size=size, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
    ]
    width = {1: 420, 2: 360, 3: 270}.get(len(picture.rows[0]), 210)
    return altair.layer(*layers).properties(width=width, height=HEIGHT, title=panel.title)


def _marks(picture: Picture, panel: Panel, places: dict[float, float], *, aside: float, step: float) -> Marks:
    """Every point with its place. Lines stand a little beside each other, so that their intervals can be told apart."""
    lines = [line for line in panel.lines if not _is_level(line)]
    levels = [line for line in panel.lines if _is_level(line)]
    marks = []
    for group in (lines, levels):
        gap = min(0.09, 0.5 / max(1, len(group))) * step if picture.doubling else 0.025 * step
        for index, line in enumerate(group):
            shift = (index - (len(group) - 1) / 2) * gap
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


def _is_level(line: Line) -> bool:
    return all(point.x is None for point in line.points)


def _range(panel: Panel) -> tuple[float, float]:
    """The ends of the axis in percent, on fives and tens around all intervals."""
    shares = [point.share for line in panel.lines for point in line.points]
    low, high = 100 * min(share.low for share in shares), 100 * max(share.high for share in shares)
    if panel.full:
        return 0.0, min(100.0, 10.0 * math.ceil(high / 10))
    return max(0.0, 5.0 * math.floor(low / 5)), min(100.0, 5.0 * math.ceil(high / 5))


def _tick(value: float, picture: Picture) -> str:
    return f"{value:g}" if picture.doubling or value == 0 else radius(value)
