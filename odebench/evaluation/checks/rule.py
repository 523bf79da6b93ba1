"""How a check comes to its status: counts flag by Wilson's lower bound, quantities by a threshold."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from odebench.numerics.statistics import wilson_lower
from odebench.result.consistency import COUNT_THRESHOLD as COUNT_THRESHOLD
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

SpeaksOf = Literal["model", "settings"]


def count_check(
    check: CheckId, *, speaks_of: SpeaksOf, k: int, n: int, why: str, evidence: dict[str, JsonValue] | None = None
) -> Check:
    """A check that counts k images of n; it flags where Wilson's lower bound of k/n is above COUNT_THRESHOLD."""
    bound = wilson_lower(k, n)
    return Check(
        id=check.value,
        name=check.label,
        status="flag" if bound > COUNT_THRESHOLD else "pass",
        speaks_of=speaks_of,
        figure=bound,
        threshold=COUNT_THRESHOLD,
        k=k,
        n=n,
        why=why,
        evidence=evidence or {},
    )


def threshold_check(
    check: CheckId,
    *,
    speaks_of: SpeaksOf,
    flagged: bool,
    figure: float,
    threshold: float,
    why: str,
    evidence: dict[str, JsonValue] | None = None,
) -> Check:
    """A check of one quantity against a threshold; `flagged` says on which side of it the figure lies."""
    return Check(
        id=check.value,
        name=check.label,
        status="flag" if flagged else "pass",
        speaks_of=speaks_of,
        figure=figure,
        threshold=threshold,
        k=None,
        n=None,
        why=why,
        evidence=evidence or {},
    )


def skipped(check: CheckId, *, speaks_of: SpeaksOf, why: str) -> Check:
    """A check that could not be made, and why."""
    return Check(
        id=check.value,
        name=check.label,
        status="skipped",
        speaks_of=speaks_of,
        figure=None,
        threshold=None,
        k=None,
        n=None,
        why=why,
        evidence={},
    )
