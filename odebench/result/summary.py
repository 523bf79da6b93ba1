"""Summaries of what an evaluation measured: quantiles of norms, NFE, flags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from odebench.result.consistency import SAID_OTHERWISE
from odebench.result.schema import Check, NfeSummary, Quantiles


def flags_of(
    checks: Sequence[Check],
    *,
    alone: bool,
    randomised: bool = False,
    opaque: bool = False,
    left_out: bool = False,
    few_candidates: bool = False,
) -> tuple[str, ...]:
    """The flags of a result: its flagged checks by name, and others beside them.

    batch-coupled where images were judged alone, randomised where over repeated passes, unseeded where a model draws
    from a generator of its own, opaque-gradient where a module's gradient could not be confirmed, no-transfer where
    that stage was left out, few-candidates where a file had none for some images that could be attacked.
    """
    found = [check.name for check in checks if check.status == "flag" and check.id not in SAID_OTHERWISE]
    others = {
        "batch-coupled": alone,
        "randomised": randomised,
        "opaque-gradient": opaque,
        "no-transfer": left_out,
        "unseeded": any(check.id == 2 and not check.evidence.get("seeded", True) for check in checks),
        "few-candidates": few_candidates,
    }
    return tuple([*found, *(flag for flag, raised in others.items() if raised)])


def quantiles(distances: Sequence[float]) -> Quantiles | None:
    """Quantiles of the norms of perturbations; None where there are none."""
    if not distances:
        return None
    at = np.quantile(np.asarray(distances), [0.05, 0.25, 0.5, 0.75, 0.95])
    return Quantiles(q05=float(at[0]), q25=float(at[1]), q50=float(at[2]), q75=float(at[3]), q95=float(at[4]))


def nfe_summary(counts: Sequence[int]) -> NfeSummary | None:
    """Mean, 95th percentile and largest of the field evaluations an image; None where there are none."""
    if not counts:
        return None
    return NfeSummary(mean=float(np.mean(counts)), p95=float(np.quantile(counts, 0.95)), max=max(counts))
