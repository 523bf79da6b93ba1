"""The curves of a diagnosis: their values, and how they are drawn as text and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from odebench.errors import UsageError
from odebench.io.files import check_writable
from odebench.result.schema import Result

_SVG_WIDTH, _SVG_HEIGHT = 340, 200
_TEXT_HEIGHT = 12
_FEW = 6
"""Up to so many points of a text each have a tick of their own."""


@dataclass(frozen=True)
class Curve:
    """Points by rising x, with a title and the names of the axes. A `share` is drawn from 0 to 1."""

    title: str
    x_name: str
    y_name: str
    points: tuple[tuple[float, float], ...]
    share: bool = False

    @property
    def y_range(self) -> tuple[float, float]:
        """The lowest and highest y to show."""
        ys = [y for _, y in self.points]
        low, high = (min(0.0, *ys), 1.0) if self.share else (min(ys), max(ys))
        return (low, high) if high > low else (low - 0.5, high + 0.5)


@dataclass(frozen=True)
class Bars:
    """Values by name."""

    title: str
    value_name: str
    values: tuple[tuple[str, float], ...]


def curves(result: Result) -> list[Curve]:
    """Loss against steps, accuracy against epsilon, cosine with the adjoint against horizon: those with evidence."""
    evidence: dict[str, JsonValue] = {}
    for check in result.checks:
        evidence |= check.evidence
    losses = _numbers(evidence.get("median_loss"))
    clean = result.epsilons[0].figures.clean_accuracy.value
    # Of the reference attack alone where it was run at every radius: at the middle one other probes are stronger.
    alone = _numbers(evidence.get("robust_accuracy"))
    values = alone or [item.figures.robust_accuracy.value for item in result.epsilons]
    accuracy = [(0.0, clean), *_points([item.epsilon for item in result.epsilons], values)]
    horizons, cosines = (_numbers(evidence.get(name)) for name in ("horizons", "adjoint_cosine"))
    norm = result.evaluation.threat_model.norm
    found = [
        Curve("loss against steps", "step", "median cross-entropy", _points(range(len(losses)), losses)),
        Curve("accuracy against epsilon", f"epsilon ({norm})", "robust accuracy", tuple(accuracy), share=True),
        Curve(
            "adjoint's gradient against horizon",
            "T",
            "cosine with the direct gradient",
            _points(horizons, cosines),
            share=True,
        ),
    ]
    return [curve for curve in found if len(curve.points) > 1]


def nfe_bars(result: Result) -> Bars | None:
    """Mean, 95th percentile and largest NFE per image, clean and under attack; None for a model without a field."""
    kinds = {"clean": result.nfe.clean, "attacked": result.nfe.adversarial}
    values = [
        (f"{kind}, {name}", value)
        for kind, summary in kinds.items()
        if summary is not None
        for name, value in (("mean", summary.mean), ("95th percentile", summary.p95), ("largest", summary.max))
    ]
    return Bars("NFE per image", "evaluations of the field", tuple(values)) if values else None


def _numbers(value: JsonValue) -> list[float | None]:
    return cast("list[float | None]", value) if isinstance(value, list) else []


def _points(xs: Sequence[float | None], ys: Sequence[float | None]) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None)


def curve_text(curve: Curve, *, width: int = 78, plain: bool = False) -> str:
    """A curve, `width` characters wide, with its title and axes, without colour; `plain` draws its line in ASCII."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, _TEXT_HEIGHT)
    xs, ys = ([point[index] for point in curve.points] for index in (0, 1))
    plotext.plot(xs, ys, marker="." if plain else "braille")
    if len(xs) <= _FEW:
        plotext.scatter(xs, ys, marker="o")
        plotext.xticks(xs, [f"{x:.4g}" for x in xs])
    plotext.ylim(*curve.y_range)
    drawn = "\n".join(line.rstrip() for line in plotext.uncolorize(plotext.build()).rstrip().splitlines())
    return f"{curve.title}: {curve.y_name}, over {curve.x_name}\n{drawn}"


def bars_text(bars: Bars, *, width: int = 78) -> str:
    """Bars as lines of text, each with its value."""
    longest, largest = max(len(name) for name, _ in bars.values), max(value for _, value in bars.values)
    room = width - longest - 10
    lines = [f"{bars.title}: {bars.value_name}"]
    for name, value in bars.values:
        length = max(1, round(room * value / largest)) if value > 0 else 0
        lines.append(f"{name:<{longest}} {'▇' * length} {value:.4g}")
    return "\n".join(lines)


def check_charts(path: Path) -> None:
    """Raises UsageError, before anything is computed, where no chart can be drawn into this file."""
    if path.suffix.lower() != ".svg":
        raise UsageError(f"a chart is an SVG picture: name a file that ends in .svg, not {path}")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file")
    check_writable(path.parent)


def diagnosis_svg(title: str, curves: Sequence[Curve], bars: Bars | None) -> str:
    """The curves and bars as one SVG, two in each row."""
    import altair
    import vl_convert

    parts: list[Any] = [_curve_chart(altair, curve) for curve in curves]
    if bars is not None:
        parts.append(_bars_chart(altair, bars))
    rows = [altair.hconcat(*parts[first : first + 2]) for first in range(0, len(parts), 2)]
    whole = altair.vconcat(*rows).properties(title=title).configure_view(stroke=None)
    svg: str = vl_convert.vegalite_to_svg(whole.to_dict())
    return svg


def _curve_chart(altair: Any, curve: Curve) -> Any:
    values = altair.Data(values=[{"x": x, "y": y} for x, y in curve.points])
    few = len(curve.points) < 8
    x = altair.X("x:Q", title=curve.x_name)
    if few:
        x = x.axis(values=[point[0] for point in curve.points], format=".3~g")
    line = altair.Chart(values, title=curve.title, width=_SVG_WIDTH, height=_SVG_HEIGHT).mark_line(point=few)
    return line.encode(x=x, y=altair.Y("y:Q", title=curve.y_name, scale=altair.Scale(domain=list(curve.y_range))))


def _bars_chart(altair: Any, bars: Bars) -> Any:
    names = [name for name, _ in bars.values]
    values = altair.Data(values=[{"name": name, "value": value} for name, value in bars.values])
    chart = altair.Chart(values, title=bars.title, width=_SVG_WIDTH, height=_SVG_HEIGHT).mark_bar()
    return chart.encode(x=altair.X("value:Q", title=bars.value_name), y=altair.Y("name:N", title=None, sort=names))
