"""Curves and bars as an SVG picture, with the extra `chart` (altair and vl-convert)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from odebench.errors import UsageError
from odebench.io.files import check_writable
from odebench.render.diagnosis import Bars, Curve

_WIDTH, _HEIGHT = 340, 200


def check_charts(path: Path) -> None:
    """Raises UsageError, before anything is computed, where no chart could be drawn into this file."""
    if path.suffix.lower() != ".svg":
        raise UsageError(f"a chart is an SVG picture: name a file that ends in .svg, not {path}")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file")
    if missing := [name for name in ("altair", "vl_convert") if find_spec(name) is None]:
        raise UsageError(f"a chart needs {' and '.join(missing)}: pip install 'odebench[chart]'")
    check_writable(path.parent)


def chart_svg(title: str, curves: Sequence[Curve], bars: Bars | None) -> str:
    """One picture, two charts a row. It needs the extra `chart`: see check_charts."""
    import altair
    import vl_convert

    parts: list[Any] = [_curve(altair, curve) for curve in curves]
    if bars is not None:
        parts.append(_bars(altair, bars))
    rows = [altair.hconcat(*parts[first : first + 2]) for first in range(0, len(parts), 2)]
    whole = altair.vconcat(*rows).properties(title=title).configure_view(stroke=None)
    svg: str = vl_convert.vegalite_to_svg(whole.to_dict())
    return svg


def _curve(altair: Any, curve: Curve) -> Any:
    values = altair.Data(values=[{"x": x, "y": y} for x, y in curve.points])
    few = len(curve.points) < 8
    x = altair.X("x:Q", title=curve.x_name)
    if few:
        x = x.axis(values=[point[0] for point in curve.points], format=".3~g")
    line = altair.Chart(values, title=curve.title, width=_WIDTH, height=_HEIGHT).mark_line(point=few)
    return line.encode(x=x, y=altair.Y("y:Q", title=curve.y_name, scale=altair.Scale(domain=list(curve.y_range))))


def _bars(altair: Any, bars: Bars) -> Any:
    names = [name for name, _ in bars.values]
    values = altair.Data(values=[{"name": name, "value": value} for name, value in bars.values])
    chart = altair.Chart(values, title=bars.title, width=_WIDTH, height=_HEIGHT).mark_bar()
    return chart.encode(x=altair.X("value:Q", title=bars.value_name), y=altair.Y("name:N", title=None, sort=names))
