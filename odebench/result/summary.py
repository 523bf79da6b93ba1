"""Summaries of what an evaluation measured: quantiles of norms, NFE."""

from __future__ import annotations

import string
from collections.abc import Sequence
from itertools import product

import numpy as np

from odebench.errors import ResultError
from odebench.result.schema import NfeSummary, Quantiles


def quantiles(distances: Sequence[float]) -> Quantiles | None:
    """Quantiles of the norms of perturbations; None where there are none."""
    if not distances:
        return None
    at = np.quantile(np.asarray(distances), [0.05, 0.25, 0.5, 0.75, 0.95])
    return Quantiles(q05=float(at[0]), q25=float(at[1]), q50=float(at[2]), q75=float(at[3]), q95=float(at[4]))


def nfe_summary(counts: Sequence[int]) -> NfeSummary | None:
    """Mean, 95th percentile and largest of the field evaluations per image; None where there are none."""
    if not counts:
        return None
    return NfeSummary(mean=float(np.mean(counts)), p95=float(np.quantile(counts, 0.95)), max=max(counts))


def felled_codes(stages: Sequence[str]) -> dict[str, str]:
    """The stage names by codes in order: aa, ab, ac and so on. Raises ResultError for more than there are codes."""
    codes = ["".join(pair) for pair in product(string.ascii_letters, repeat=2)]
    if len(stages) > len(codes):
        raise ResultError(
            f"{len(stages)} stages and epsilons are more than the {len(codes)} that felled_by can name; "
            "attack fewer epsilons at once"
        )
    return dict(zip(codes, stages, strict=False))
