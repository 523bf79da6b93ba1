"""The charts of the leaderboard as SVG, the same bytes wherever they are drawn, for light and for dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from odebench.protocol.spec import radius
from odebench.render.chart_data import COLOURS, Chart, Line, Panel, Point, style
from odebench.render.markdown_tables import horizon_name

HEIGHT = 240
_LEFT, _GAP, _TOP, _BELOW, _PAD = 46, 18, 62, 64, 12
"""Pixels: of a y axis, between panels, of the titles, from the foot of one row of panels to the next, around it all."""
_WIDTHS = {1: 420, 2: 360, 3: 270}
_APART = 0.11
"""The smallest distance of two labels, as a share of the axis."""
_WIDE = 7.4
"""Pixels of a character of the legend, at most: no font is asked."""
LIGHT = {"ink": "#1b1f24", "soft": "#57606a", "line": "#e1e4e8", "paper": "#ffffff"}
_DARK = {"ink": "#e6e9ec", "soft": "#a3adb8", "line": "#30363d", "paper": "#14171b"}


@dataclass(frozen=True)
class _Axis:
    """Where the values of x lie, and which are labelled, in units of the axis; `aside` is the place without a value."""

    low: float
    high: float
    places: Mapping[float, float]
    aside: float
    step: float
    labels: Mapping[float, str]


def chart_svg(chart: Chart) -> str:
    """The chart as SVG: rows of panels below each other, all from 0 to 100%, then a legend."""
    across = _WIDTHS.get(max(map(len, chart.rows)), 210)
    inside = max(len(row) * (_LEFT + across) + (len(row) - 1) * _GAP for row in chart.rows)
    width = max(inside, math.ceil(8.6 * len(chart.title)), math.ceil(6.4 * len(chart.subtitle))) + 2 * _PAD
    parts = [
        svg_text(_PAD, 28, chart.title, size=16, more=' font-weight="bold"'),
        svg_text(_PAD, 47, chart.subtitle, "soft"),
    ]
    top = _TOP
    for row in chart.rows:
        for number, panel in enumerate(row):
            left = _PAD + _LEFT + number * (_LEFT + across + _GAP)
            parts += _panel(chart, panel, left, top + 22, across)
        top += 22 + HEIGHT + _BELOW
    legend, height = _legend(chart, top, width)
    return svg_page([*parts, *legend], width, height)


def svg_page(parts: Sequence[str], width: int, height: int) -> str:
    """Parts as an SVG file for light and for dark pages."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="system-ui, sans-serif" font-size="12">',
            f"<style>{_dark_rules()}</style>",
            f'<rect class="paper" width="{width}" height="{height}" fill="{LIGHT["paper"]}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _dark_rules() -> str:
    """What changes on a dark page."""
    rules = [f".{name}{{fill:{colour}}}" for name, colour in _DARK.items() if name != "line"]
    rules += [f".line{{stroke:{_DARK['line']}}}", f".edge{{stroke:{_DARK['paper']}}}"]
    rules += [f".f{number}{{fill:{dark}}}.s{number}{{stroke:{dark}}}" for number, (_, dark) in enumerate(COLOURS)]
    return f"@media (prefers-color-scheme:dark){{{''.join(rules)}}}"


def _panel(chart: Chart, panel: Panel, left: float, top: float, width: float) -> Iterator[str]:
    axis = _axis(chart, panel)
    foot = top + HEIGHT

    def across(x: float) -> float:
        return left + width * (x - axis.low) / (axis.high - axis.low)

    def up(share: float) -> float:
        return foot - HEIGHT * share

    yield svg_text(left, top - 12, panel.title, size=13)
    for percent in range(0, 101, 20):
        y = up(percent / 100)
        yield f'<path class="line" d="M{px(left)} {px(y)}h{px(width)}" stroke="{LIGHT["line"]}"/>'
        yield svg_text(left - 6, y + 4, str(percent), "soft", more=' text-anchor="end"')
    for x, label in axis.labels.items():
        yield svg_text(across(x), foot + 18, label, "soft", more=' text-anchor="middle"')
    yield svg_text(left + width / 2, foot + 38, chart.x_name, more=' text-anchor="middle"')
    turned = f' text-anchor="middle" transform="rotate(-90 {px(left - 34)} {px(top + HEIGHT / 2)})"'
    yield svg_text(left - 34, top + HEIGHT / 2, "accuracy, %", more=turned)

    drawn = [(line, _shifted(panel, line, chart, axis)) for line in _in_place(panel)]
    for line, places in drawn:
        number, _ = style(chart, line.name)
        stroke = f'class="s{number}" fill="none" stroke="{COLOURS[number][0]}"'
        if _is_level(line):
            level = px(up(line.points[0].share.value))
            yield f'<path {stroke} stroke-width="1.3" stroke-dasharray="5 4" d="M{px(left)} {level}h{px(width)}"/>'
        elif len(places) > 1:
            steps = (
                f"{px(across(x))} {px(up(point.share.value))}" for x, point in zip(places, line.points, strict=True)
            )
            yield f'<path {stroke} stroke-width="2" d="M{"L".join(steps)}"/>'
    for line, places in drawn:
        for x, point in zip(places, line.points, strict=True):
            yield _mark(chart, line, point, across(x), up)


def _mark(chart: Chart, line: Line, point: Point, x: float, up: Callable[[float], float]) -> str:
    number, shape = style(chart, line.name)
    share, colour = point.share, COLOURS[number][0]
    values = ", ".join(f"{100 * value:.1f}" for value in (share.low, share.high))
    at = "" if chart.doubling else f", epsilon {_tick(point.x or 0.0, chart)}"
    said = f"{line.name}, {horizon_name(point.cell.horizon)}{at}: {100 * share.value:.1f}% [{values}]"
    return (
        f'<g><title>{escape(said)}</title><path class="s{number}" stroke="{colour}" stroke-width="1.6" '
        f'd="M{px(x)} {px(up(share.low))}V{px(up(share.high))}"/><path class="f{number} edge" fill="{colour}" '
        f'stroke="{LIGHT["paper"]}" stroke-width="0.75" transform="translate({px(x)} {px(up(share.value))})" '
        f'd="{shape}"/></g>'
    )


def _legend(chart: Chart, top: float, width: float) -> tuple[list[str], int]:
    """The legend in as many lines as it takes, and where the chart ends."""
    parts, x, y = [], float(_PAD), top
    for name in chart.names:
        needs = 24 + _WIDE * len(name)
        if x > _PAD and x + needs > width - _PAD:
            x, y = float(_PAD), y + 22
        number, shape = style(chart, name)
        colour = COLOURS[number][0]
        parts.append(
            f'<path class="f{number}" fill="{colour}" transform="translate({px(x + 7)} {px(y)})" d="{shape}"/>'
        )
        parts.append(svg_text(x + 19, y + 4.5, name, size=13))
        x += needs + 10
    return parts, math.ceil(y + 22)


def svg_text(x: float, y: float, text: str, kind: str = "ink", *, size: int = 12, more: str = "") -> str:
    """A text, whose colour a dark page changes by its kind: ink or soft."""
    sized = "" if size == 12 else f' font-size="{size}"'
    return f'<text class="{kind}" x="{px(x)}" y="{px(y)}" fill="{LIGHT[kind]}"{sized}{more}>{escape(text)}</text>'


def px(pixels: float) -> str:
    """Pixels to a tenth."""
    return f"{pixels:.1f}".removesuffix(".0")


def _axis(chart: Chart, panel: Panel) -> _Axis:
    ticks = sorted({point.x for line in panel.lines for point in line.points if point.x is not None})
    places = {tick: math.log2(tick) if chart.doubling else tick for tick in ticks}
    first, last = (min(places.values()), max(places.values())) if places else (0.0, 0.0)
    step = (last - first) / max(1, len(ticks) - 1) or 1.0
    without = any(_is_level(line) for line in panel.lines)
    aside = last + 0.9 * step if without else last
    low, high = (first - 0.35 * step, aside + 0.35 * step) if chart.doubling else (-0.12 * step, last + 0.25 * step)
    return _Axis(
        low, high, places, aside, step, _labels(chart, places) | ({aside: horizon_name(None)} if without else {})
    )


def _labels(chart: Chart, places: Mapping[float, float]) -> dict[float, str]:
    """The label at each place; that of 0, then none where it would touch a label to the right."""
    labels: dict[float, str] = {}
    span = max(places.values(), default=0.0) - min(places.values(), default=0.0)
    for tick, place in sorted(places.items(), key=lambda item: (item[0] != 0, -item[0])):
        if all(abs(place - shown) >= _APART * span for shown in labels):
            labels[place] = _tick(tick, chart)
    return dict(sorted(labels.items()))


def _in_place(panel: Panel) -> list[Line]:
    """The lines in the order in which they are shifted, those without a horizon last."""
    return sorted(panel.lines, key=_is_level)


def _shifted(panel: Panel, line: Line, chart: Chart, axis: _Axis) -> Sequence[float]:
    """Where the points of a line lie. Lines are shifted a little, so that their intervals do not cover each other."""
    alike = [other for other in panel.lines if _is_level(other) == _is_level(line)]
    gap = min(0.09, 0.5 / len(alike)) * axis.step if chart.doubling else 0.025 * axis.step
    number = next(index for index, other in enumerate(alike) if other is line)
    shift = (number - (len(alike) - 1) / 2) * gap
    return [(axis.aside if point.x is None else axis.places[point.x]) + shift for point in line.points]


def _is_level(line: Line) -> bool:
    return all(point.x is None for point in line.points)


def _tick(value: float, chart: Chart) -> str:
    return f"{value:g}" if chart.doubling or value == 0 else radius(value)
