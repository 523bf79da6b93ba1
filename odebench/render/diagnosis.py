"""The curves of a diagnosis, as values: what its result holds as evidence, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from odebench.result.schema import NfeSummary, Result


@dataclass(frozen=True)
class Curve:
    """Points by their rising x, with a title and the names of the axes. A `share` is drawn from 0 to 1."""

    title: str
    x_name: str
    y_name: str
    points: tuple[tuple[float, float], ...]
    share: bool = False

    @property
    def y_range(self) -> tuple[float, float]:
        """The lowest and highest y that a picture should show."""
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
    """Loss against steps, robust accuracy against epsilon, cosine with the adjoint against horizon: those there are."""
    evidence: dict[str, JsonValue] = {}
    for check in result.checks:
        evidence |= check.evidence
    losses = _numbers(evidence.get("median_loss"))
    clean = result.epsilons[0].figures.clean_accuracy.value
    # Under the reference attack alone where it was run at every radius: other probes are stronger at the middle one.
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
    """Mean, 95th percentile and largest NFE an image, clean and under attack; None for a model without a field."""
    kinds = {"clean": result.nfe.clean, "attacked": result.nfe.adversarial}
    values = [
        (f"{kind}, {name}", value)
        for kind, summary in kinds.items()
        if summary is not None
        for name, value in _parts(summary)
    ]
    return Bars("NFE an image", "evaluations of the field", tuple(values)) if values else None


def _parts(summary: NfeSummary) -> list[tuple[str, float]]:
    return [("mean", summary.mean), ("95th percentile", summary.p95), ("largest", float(summary.max))]


def _numbers(value: JsonValue) -> list[float | None]:
    return cast("list[float | None]", value) if isinstance(value, list) else []


def _points(xs: Sequence[float | None], ys: Sequence[float | None]) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None)
