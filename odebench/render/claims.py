"""The answers to the registered claims, as Markdown that reads as plain text in 80 columns and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from odebench.analysis.claims import Claim, ClaimVerdict
from odebench.analysis.contrasts import Estimate
from odebench.io.text import fill
from odebench.protocol.registration import RegisteredClaim
from odebench.protocol.spec import radius
from odebench.render.markdown_tables import escape, grid, item

UNITS = (
    "Gains are in points, in the mean over the horizons; slopes in points per doubling of T. 95% intervals, per claim, "
    "cover train seeds and images; p is two-sided and Holm-adjusted within the claim's family."
)
INTRODUCTION = (
    "Does distilling from a ResNet make a Neural ODE more accurate and more robust, and does integrating longer make "
    f"it more robust? Each claim was registered before the first of its runs. {UNITS}"
)
WORDS = (
    "Answers, the first that fits. Not run: no results. Too few seeds: under eight. Flagged: a model has a flag. "
    "Supported: adjusted p < .05, the gain is positive. Reversed: adjusted p < .05, it is negative. Masked: supported "
    "under a weak attack alone. Ruled out: the gain is below the margin. Inconclusive: otherwise. A stronger attack "
    "may change these answers."
)
PAPER = (
    "The paper (arXiv 2203.05103) reports that distillation lifts accuracy by 24% on CIFAR10 and by 5% on SVHN, and "
    "that distillation and a longer horizon improve robustness. Its architecture, temperature, horizons and attack "
    "budgets are not public: models, recipes and budgets here are ours, and no figure here is the paper's."
)


def claims_markdown(claims: Sequence[Claim]) -> str:
    """A table for each data set, and a sentence on what each claim rests on."""
    parts = ["# Claims", "", fill(INTRODUCTION), ""]
    for dataset, same in _by_dataset(claims):
        answered = [claim for claim in same if claim.word is not ClaimVerdict.not_run]
        if answered:
            parts += [f"## {escape(dataset)}", "", *_table(answered), ""]
            parts += [item(sentence(claim)) for claim in answered]
        parts += [*(item(f"{dataset}, not run: {names}: {why}") for names, why in not_run(same)), ""]
    return "\n".join([*parts, fill(WORDS), "", fill(PAPER), ""])


OVERVIEW = {
    "clean-gain": "Distillation makes the model more accurate",
    "robust-gain": "Distillation makes the model more robust",
    "slope-plain": "Doubling T makes the plain model more robust",
    "slope-distilled": "Doubling T makes the distilled model more robust",
}
"""The questions of the study, by the name of their claims without the data set."""


Answers = tuple[list[str], list[tuple[str, list[Claim | None]]]]
"""The data sets, and each question with its claim on each of them."""


def answers(claims: Sequence[Claim]) -> Answers:
    """The study's questions that have a claim, and the data sets that have one."""
    by_name = {claim.registered.name: claim for claim in claims}
    datasets = [name for name, _ in _by_dataset(claims) if any(f"{name}-{each}" in by_name for each in OVERVIEW)]
    rows = [(text, [by_name.get(f"{each}-{name}") for each in datasets]) for name, text in OVERVIEW.items()]
    return datasets, [(text, found) for text, found in rows if any(claim is not None for claim in found)]


def overview(claims: Sequence[Claim]) -> list[str]:
    """One table of the study's questions (rows) and data sets (columns): points, 95% interval, word."""
    datasets, rows = answers(claims)
    lines = [(question, *map(_answer_text, found)) for question, found in rows]
    return grid(("claim", *datasets), lines, left=tuple(range(len(datasets) + 1))) if lines else []


def _answer_text(claim: Claim | None) -> str:
    if claim is None:
        return ""
    if claim.estimate is None:
        return claim.word.value
    return f"{points_text(claim.estimate)}, {claim.word.value}{seeds_so_far(claim)}"


def seeds_so_far(claim: Claim) -> str:
    """How many of the registered train seeds a claim rests on, while some are missing; else empty."""
    registered = len(claim.registered.train_seeds)
    return "" if len(claim.seeds) == registered else f" ({len(claim.seeds)} of {registered} seeds so far)"


def not_run(claims: Sequence[Claim]) -> list[tuple[str, str]]:
    """The claims of one data set that were not run: their names, and for each reason the reason."""
    by_reason: dict[str, list[str]] = {}
    for claim in claims:
        if claim.word is ClaimVerdict.not_run:
            by_reason.setdefault(claim.why, []).append(name_of(claim))
    return [(", ".join(names), why) for why, names in by_reason.items()]


def claims_json(claims: Sequence[Claim]) -> str:
    """The claims as a JSON list of objects; figures in points, null for what is not known."""
    return json.dumps([_record(claim) for claim in claims], indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _by_dataset(claims: Sequence[Claim]) -> list[tuple[str, list[Claim]]]:
    """The claims of each data set, data sets in the order of their first claim."""
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        found.setdefault(claim.registered.dataset, []).append(claim)
    return list(found.items())


def _table(claims: Sequence[Claim]) -> list[str]:
    lines = [
        (
            escape(name_of(claim)),
            "" if claim.estimate is None else points_text(claim.estimate),
            "" if claim.adjusted_p is None else p_text(claim.adjusted_p),
            claim.word.value,
        )
        for claim in claims
    ]
    return grid(("claim", "points [95%]", "p", "answer"), lines, left=(0, 3))


def sentence(claim: Claim) -> str:
    """A claim's question and answer, the reason for it, what it rests on, and what stands beside it."""
    registered = claim.registered
    parts = [f"{name_of(claim)}: {registered.question} {claim.word.value.capitalize()}: {claim.why}"]
    if claim.estimate is None:
        return parts[0]
    parts.append(_shares(claim))
    if registered.factor:
        parts.append(f"the arms differ in {', '.join(registered.factor)} too")
    parts.append(_basis(claim))
    parts.append(
        f"half-width {claim.estimate.half_width:.1f}, {claim.estimate.more_seeds:.1f} with twice the seeds, "
        f"{claim.estimate.more_images:.1f} with twice the images"
    )
    parts += [f"{beside.name}: {points_text(beside.estimate)}" for beside in claim.beside]
    return "; ".join(parts)


def _shares(claim: Claim) -> str:
    """What each arm keeps, and the relative gain."""
    of = "accuracy" if claim.registered.kind == "clean" else "robust accuracy"
    arms = [f"{arm_name(claim.registered, number)} {100 * share:.1f}%" for number, share in enumerate(claim.shares)]
    relative = "" if claim.relative is None else f" (relative gain {100 * claim.relative:+.1f}%)"
    return f"{of}: {', '.join(arms)}{relative}"


def _basis(claim: Claim) -> str:
    registered, found = claim.registered, claim.estimate
    images = 0 if found is None else found.images
    at = "" if registered.kind == "clean" else f" at {registered.norm} {radius(registered.epsilon)}"
    seeds = f"{len(claim.seeds)} of {len(registered.train_seeds)} train seeds"
    lacking = f" (left out for a missing cell: {' '.join(map(str, claim.left_out))})" if claim.left_out else ""
    every = {horizon for arm in registered.arms for horizon in arm.horizons or registered.horizons}
    horizons = " ".join(f"{horizon:g}" for horizon in sorted(every))
    return f"{claim.attack}{at}, T={horizons}, {seeds}{lacking}, {images} images"


def arm_name(registered: RegisteredClaim, number: int) -> str:
    """The model of an arm; with its sections where another arm has the same model."""
    arm = registered.arms[number]
    alike = [other.model for other in registered.arms].count(arm.model) > 1
    return f"{arm.model} ({', '.join(arm.sections)})" if alike else arm.model


def _record(claim: Claim) -> dict[str, Any]:
    registered, found = claim.registered, claim.estimate
    return {
        **registered.model_dump(mode="json"),
        "word": claim.word.value,
        "why": claim.why,
        "estimate": None if found is None else _figures(found),
        "adjusted_p": claim.adjusted_p,
        "shares": list(claim.shares),
        "relative": claim.relative,
        "seeds": list(claim.seeds),
        "left_out": list(claim.left_out),
        "absent": list(claim.absent),
        "beside": [{"name": each.name, "estimate": _figures(each.estimate)} for each in claim.beside],
        "flags": list(claim.flags),
        "dataset_sha256": claim.dataset_sha256,
        "files": [path.as_posix() for path in claim.files],
    }


def _figures(found: Estimate) -> dict[str, float]:
    return {name: getattr(found, name) for name in (*Estimate.__dataclass_fields__, "half_width")}


def name_of(claim: Claim) -> str:
    """The name of a claim without that of its data set."""
    return claim.registered.name.removeprefix(f"{claim.registered.dataset}-")


def points_text(found: Estimate) -> str:
    """An estimate in points with its interval."""
    value, low, high = (f"{round(value, 1) + 0.0:.1f}" for value in (found.points, found.low, found.high))
    return f"{'' if value.startswith('-') or float(value) == 0 else '+'}{value} [{low}, {high}]"


def p_text(p: float) -> str:
    """A p without its leading zero."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
