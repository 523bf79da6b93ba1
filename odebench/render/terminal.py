"""Curves and bars as text for a terminal."""

from __future__ import annotations

import plotext

from odebench.render.diagnosis import Bars, Curve

_HEIGHT = 12
_FEW = 6
"""Up to so many points each has its own tick."""


def curve_text(curve: Curve, *, width: int = 78) -> str:
    """A curve, `width` characters wide, with its title and axes, without colour."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, _HEIGHT)
    xs, ys = ([point[index] for point in curve.points] for index in (0, 1))
    plotext.plot(xs, ys, marker="braille")
    if len(xs) <= _FEW:
        plotext.scatter(xs, ys, marker="o")
        plotext.xticks(xs, [f"{x:.4g}" for x in xs])
    plotext.ylim(*curve.y_range)
    text: str = plotext.uncolorize(plotext.build())
    return f"{curve.title}: {curve.y_name}, over {curve.x_name}\n" + _stripped(text)


def bars_text(bars: Bars, *, width: int = 78) -> str:
    """Bars as lines of text, each with its value."""
    longest, largest = max(len(name) for name, _ in bars.values), max(value for _, value in bars.values)
    room = width - longest - 10
    lines = [f"{bars.title}: {bars.value_name}"]
    for name, value in bars.values:
        length = max(1, round(room * value / largest)) if value > 0 else 0
        lines.append(f"{name:<{longest}} {'▇' * length} {value:.4g}")
    return "\n".join(lines)


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())
