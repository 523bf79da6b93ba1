"""The answers to the claims, as Markdown that reads as plain text in 80 columns and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from odebench.analysis.claim_figures import Beside
from odebench.analysis.claims import Claim, ClaimVerdict
from odebench.analysis.contrasts import Estimate
from odebench.io.text import fill
from odebench.protocol.spec import radius
from odebench.render.markdown_tables import escape, grid, item

INTRODUCTION = (
    "Does distilling from a ResNet make a Neural ODE more accurate and more robust, and does integrating longer make "
    "it more robust? Gains are student minus baseline in points, in the mean over the horizons; slopes are points a "
    "doubling of T. Pairs share image and train seed; intervals are 95%, over images or over train seeds, the "
    "wider of the two, each claim for itself; p is one-sided and Holm-adjusted for all claims on a data set."
)
WORDS = (
    "Supported: adjusted p < .05 and no flag that speaks of the model. Masked: supported under FGSM or PGD and not in "
    "the worst case, or supported with a flag. Not supported: upper bound under 1 point. Undecided: else, floors and "
    "ceilings included. Not run: no results on that data. Intervals cover sampling, not the strength of attacks."
)
PAPER = (
    "The paper (arXiv 2203.05103) reports that distillation lifts accuracy by 24% on CIFAR10 and by 5% on SVHN, and "
    "that distillation and a longer horizon improve robustness. Its architecture, temperature, horizons and attack "
    "budgets are not public: models, recipes and budgets here are ours, and no figure here is to be read as the "
    "paper's."
)


def claims_markdown(
    claims: Sequence[Claim], *, link: Callable[[str, Claim], str] = lambda text, _: text, level: int = 1
) -> str:
    """A table for each data set, under a title of this `level`, and a sentence on what each claim rests on; `link`
    makes a link of the text of an estimate."""
    parts = [f"{'#' * level} Claims", "", fill(INTRODUCTION), ""]
    for (dataset, digest), found in groupby(claims, lambda claim: (claim.dataset, claim.dataset_sha256)):
        same = list(found)
        if all(claim.word is ClaimVerdict.not_run for claim in same):
            named = "; ".join(f"{name_of(claim)}{over(claim)}" for claim in same)
            parts += [item(f"{dataset}: not run; {same[0].why} ({named})"), ""]
            continue
        shared = len({claim.dataset_sha256 for claim in claims if claim.dataset == dataset}) > 1
        heading = dataset + (f" (sha256 {str(digest)[:12]})" if shared else "")
        parts += [f"{'#' * (level + 1)} {escape(heading)}", "", *_table(same, link), ""]
        parts += [*(item(sentence(claim)) for claim in same), ""]
    return "\n".join([*parts, fill(WORDS), "", fill(PAPER), ""])


def claims_json(claims: Sequence[Claim]) -> str:
    """The claims as a JSON list of objects; figures in points, null for what is not known."""
    return json.dumps([_record(claim) for claim in claims], indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table(claims: Sequence[Claim], link: Callable[[str, Claim], str]) -> list[str]:
    lines = [
        (
            escape(name_of(claim)),
            "" if claim.estimate is None else link(points_text(claim.estimate), claim),
            "" if claim.adjusted_p is None else p_text(claim.adjusted_p),
            claim.word.value,
        )
        for claim in claims
    ]
    return grid(("claim", "points [95%]", "p", "word"), lines, left=(0, 3))


def sentence(claim: Claim) -> str:
    """A sentence with the word of a claim, the reason for it, what it rests on, and what stands beside it."""
    parts = [f"{name_of(claim)}{over(claim)}: {claim.word.value}, {claim.why}"]
    if claim.relative is not None:
        parts.append(f"relative gain {100 * claim.relative:+.1f}%")
    if claim.attack is not None:
        at = "" if claim.epsilon is None else f" at epsilon {radius(claim.epsilon)}"
        horizons = f"T={' '.join(f'{horizon:g}' for horizon in claim.horizons)}"
        rests = [f"rests on {claim.attack}{at}", horizons, _seeds(claim.seeds)]
        if claim.estimate is not None:
            rests += [f"{claim.estimate.images} images", _interval(claim.estimate)]
        parts.append(", ".join(rests))
    for missing, same in groupby(claim.beside, lambda beside: beside.missing):
        if missing:
            parts.append(f"{', '.join(beside.name for beside in same)}: {missing}")
        else:
            parts += [_beside(beside, claim) for beside in same]
    return "; ".join(parts)


def _beside(beside: Beside, claim: Claim) -> str:
    """A figure beside a claim with its images; with its seeds and the kind of its interval where the claim's differ."""
    found = beside.estimate
    assert found is not None
    parts = [points_text(found), f"{found.images} images"]
    if beside.seeds != claim.seeds:
        parts.insert(1, _seeds(beside.seeds))
    if claim.estimate is None or _interval(found) != _interval(claim.estimate):
        parts.append(_interval(found))
    return f"{beside.name}: {', '.join(parts)}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds)) or 'none'}"


def _interval(found: Estimate) -> str:
    return f"interval of the {found.interval_of}{' alone' if found.p is None else ''}"


def _record(claim: Claim) -> dict[str, Any]:
    record = {"claim" if name == "kind" else name: value for name, value in asdict(claim).items()}
    record["files"] = [path.as_posix() for path in claim.files]
    for beside in record["beside"]:
        beside["missing"] = beside["missing"] or None
    return record


def name_of(claim: Claim) -> str:
    """The kind of a claim with its norm and model."""
    norm = "" if claim.norm is None else f" {claim.norm}"
    return f"{claim.kind}{norm}, {claim.models[0]}"


def over(claim: Claim) -> str:
    """The baseline of a gain; empty for a slope."""
    return f" over {claim.models[1]}" if len(claim.models) > 1 else ""


def points_text(found: Estimate) -> str:
    """An estimate in points with its interval."""
    value, low, high = (f"{round(value, 1) + 0.0:.1f}" for value in (found.points, found.low, found.high))
    return f"{'' if value.startswith('-') or float(value) == 0 else '+'}{value} [{low}, {high}]"


def p_text(p: float) -> str:
    """A p without its leading zero."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
