"""The gains over the plain Neural ODE as a picture: a row for what was tried, an interval for each kind of accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from xml.sax.saxutils import escape

from odebench.analysis.claims import Claim
from odebench.analysis.contrasts import Estimate
from odebench.render.chart_data import COLOURS
from odebench.render.chart_svg import LIGHT, px, svg_page, svg_text
from odebench.render.claims import points_text
from odebench.render.gain_map import DECIDED, Condition, conditions

NAME = "gains"
_PAD, _TEXT, _ACROSS, _GAP, _TOP, _ROW = 12, 370, 220, 48, 84, 28
"""Pixels: around it all, of the texts, of a panel, between panels, above the rows, of a row."""
_PANELS = ("accuracy", "robust accuracy")
_TICKS = 4


def gains_svg(claims: Sequence[Claim]) -> str | None:
    """The picture; None where nothing was run."""
    tried = conditions(claims)
    if not tried:
        return None
    several = len({each.dataset for each in tried}) > 1
    width = 2 * _PAD + _TEXT + len(_PANELS) * (_ACROSS + _GAP)
    foot = _TOP + _ROW * len(tried)
    parts = [
        svg_text(_PAD, 28, "Gains over the plain Neural ODE", size=16, more=' font-weight="bold"'),
        svg_text(
            _PAD,
            47,
            f"{'' if several else f'{tried[0].dataset}; '}points, 95% intervals; filled: a gain or loss is shown",
            "soft",
        ),
    ]
    for number, each in enumerate(tried):
        text = f"{each.dataset}: {each.text}" if several else each.text
        parts.append(svg_text(_PAD, _TOP + _ROW * (number + 0.5) + 4, text))
    for number, kind in enumerate(_PANELS):
        parts += _panel(tried, kind, _PAD + _TEXT + number * (_ACROSS + _GAP), foot)
    return svg_page(parts, width, foot + 34)


def _panel(tried: Sequence[Condition], kind: str, left: float, foot: float) -> Iterator[str]:
    found = [(number, each.gains[kind].estimate) for number, each in enumerate(tried) if kind in each.gains]
    estimates = [(number, estimate) for number, estimate in found if estimate is not None]
    low = min([0.0, *(each.low for _, each in estimates)])
    high = max([1.0, *(each.high for _, each in estimates)])
    step = _step((high - low) / _TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)

    def across(points: float) -> float:
        return left + _ACROSS * (points / step - first) / (last - first)

    yield svg_text(left, _TOP - 12, kind, size=13)
    for tick in range(first, last + 1):
        colour = "soft" if tick == 0 else "line"
        x = px(across(tick * step))
        yield f'<path class="line" d="M{x} {_TOP}V{foot}" stroke="{LIGHT[colour]}"/>'
        yield svg_text(across(tick * step), foot + 18, f"{tick * step:+g}" if tick else "0", "soft", more=_MIDDLE)
    for number, estimate in estimates:
        yield _mark(tried[number], kind, estimate, across, _TOP + _ROW * (number + 0.5))


_HOLLOW = f'class="s0 paper" fill="{LIGHT["paper"]}"'
_MIDDLE = ' text-anchor="middle"'


def _mark(condition: Condition, kind: str, estimate: Estimate, across: Callable[[float], float], y: float) -> str:
    claim, colour = condition.gains[kind], COLOURS[0][0]
    # hollow where none is shown: after Holm's correction that may be so beside 0, too
    fill = f'class="f0 edge" fill="{colour}"' if claim.word in DECIDED else _HOLLOW
    low, value, high = (px(across(points)) for points in (estimate.low, estimate.points, estimate.high))
    said = escape(f"{condition.text}, {kind}: {points_text(estimate)} points, {claim.word.value}")
    return (
        f'<g><title>{said}</title><path class="s0" stroke="{colour}" stroke-width="2" d="M{low} {px(y)}H{high}"/>'
        f'<circle {fill} cx="{value}" cy="{px(y)}" r="4.5" stroke="{colour}" stroke-width="2"/></g>'
    )


def _step(wanted: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `wanted`."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted)
