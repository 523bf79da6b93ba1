"""The claims as plain values for the template of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from odebench.analysis.claims import Claim, ClaimVerdict
from odebench.leaderboard.grouping import group
from odebench.render.claims import answers, name_of, not_run, p_text, points_text, seeds_so_far, sentence

Values = dict[str, Any]


def answer_values(claims: Sequence[Claim]) -> Values:
    """The study's questions and their answers, a column a data set."""
    datasets, rows = answers(claims)
    return {
        "datasets": datasets,
        "rows": [
            {"question": question, "cells": [None if claim is None else _claim(claim) for claim in found]}
            for question, found in rows
        ],
    }


def claim_values(claims: Sequence[Claim]) -> list[Values]:
    """The answered claims of each data set, and which were not run."""
    return [
        {
            "data": dataset,
            "not_run": [{"names": names, "why": why} for names, why in not_run(same)],
            "claims": [_claim(claim) for claim in same if claim.word is not ClaimVerdict.not_run],
        }
        for dataset, same in group(claims, lambda claim: claim.registered.dataset).items()
    ]


def _claim(claim: Claim) -> Values:
    points = "" if claim.estimate is None else f"{points_text(claim.estimate)} points"
    return {
        "name": name_of(claim),
        "question": claim.registered.question,
        "why": claim.why,
        "points": points + " per doubling of T" * (bool(points) and claim.registered.kind == "slope"),
        "p": "" if claim.adjusted_p is None else p_text(claim.adjusted_p),
        "word": claim.word.value,
        "so_far": seeds_so_far(claim) if points else "",
        "sentence": sentence(claim).partition(f"{claim.registered.question} ")[2],
    }
