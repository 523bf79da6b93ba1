"""How a check comes to its status: counts flag by Wilson's lower bound, quantities by a threshold."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from odebench.numerics.statistics import wilson_lower
from odebench.result.consistency import COUNT_THRESHOLD as COUNT_THRESHOLD
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

LONGEST = 1000
"""Characters of a reason: an error of a model's may be of any length."""
SpeaksOf = Literal["model", "settings"]


def count_check(
    check: CheckId, *, speaks_of: SpeaksOf, k: int, n: int, why: str, evidence: dict[str, JsonValue] | None = None
) -> Check:
    """A check that counts k images of n; it flags where Wilson's lower bound of k/n is above COUNT_THRESHOLD."""
    bound = wilson_lower(k, n)
    status = "flag" if bound > COUNT_THRESHOLD else "pass"
    found = {"figure": bound, "threshold": COUNT_THRESHOLD, "k": k, "n": n}
    return _check(check, status, speaks_of, why, evidence, **found)


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
    status = "flag" if flagged else "pass"
    return _check(check, status, speaks_of, why, evidence, figure=figure, threshold=threshold)


def skipped(check: CheckId, *, speaks_of: SpeaksOf, why: str) -> Check:
    """A check that could not be made, and why."""
    return _check(check, "skipped", speaks_of, why, None)


def _check(
    check: CheckId, status: str, speaks_of: SpeaksOf, why: str, evidence: dict[str, JsonValue] | None, **found: float
) -> Check:
    about = {"id": check.value, "name": check.label, "status": status, "speaks_of": speaks_of}
    measured = dict.fromkeys(("figure", "threshold", "k", "n")) | found
    return Check.model_validate({**about, **measured, "why": why[:LONGEST], "evidence": evidence or {}})
