"""The claims of the project, answered from results alone, by the rules and in the words of docs/protocol.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from odebench.analysis.contrasts import (
    CORRECT,
    ROBUST,
    Estimate,
    Frame,
    Kind,
    Letters,
    cell_letters,
    estimate,
    frame_of,
    image_range,
    limit_of,
    measure,
    missing_of,
    relative_gain,
    weights_of,
)
from odebench.analysis.sections import SINGLE_ATTACKS, Arm, ComparableCells, sections_of
from odebench.leaderboard.build import WORST_CASE, one_weights_a_seed, speaks_of_settings
from odebench.leaderboard.grouping import group
from odebench.leaderboard.union import StoredResult
from odebench.numerics.statistics import holm
from odebench.protocol.spec import Norm

PAIRS = (("kd-ode", "ode"), ("kd-ode-stemless", "ode-stemless"))
"""Student and baseline: the same model, distilled and trained on labels alone."""
PAPER_DATASETS = ("cifar10", "svhn")
"""Only results on data of exactly these names answer what the paper says of them."""
LEVEL = 0.05
LEAST_GAIN = 1.0
"""Points: what stays below is no gain worth the name."""


class ClaimVerdict(str, Enum):
    """The answer to a claim."""

    supported = "supported"
    masked = "masked"
    not_supported = "not supported"
    undecided = "undecided"
    not_run = "not run"


@dataclass(frozen=True)
class Beside:
    """What stands beside a claim: the same figure where a confounder is removed. Null: what is missing says why.

    `seeds` are the train seeds that the estimate rests on, none where there is no estimate.
    """

    name: str
    estimate: Estimate | None
    missing: str = ""
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One claim on one data set, with what it rests on.

    `models` are student and baseline, or the one model of a slope. `relative` is the gain over the baseline's share.
    `adjusted_p` is Holm's over the family of the data set. `why` says in one line how the word came about.
    """

    dataset: str
    dataset_sha256: str | None
    kind: Kind
    models: tuple[str, ...]
    norm: Norm | None = None
    epsilon: float | None = None
    attack: str | None = None
    word: ClaimVerdict = ClaimVerdict.not_run
    why: str = ""
    estimate: Estimate | None = None
    relative: float | None = None
    adjusted_p: float | None = None
    horizons: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    beside: tuple[Beside, ...] = ()
    flags: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Draft:
    """A claim before the correction for its family: `weak` holds the p under each attack of SINGLE_ATTACKS."""

    claim: Claim
    missing: str
    limit: str
    p: float
    weak: Mapping[str, float]


def claims_of(stored: Sequence[StoredResult]) -> list[Claim]:
    """All claims, by data set; at the end those that the paper makes of data sets without any result.

    Only results on test images count. Results of other weights than the newest of a train seed are left out, and so is
    an evaluation that lies there with two different outcomes (both are problems that the reader of results names).
    """
    known = [item for item in stored if item.result.evaluation.dataset.split == "test"]
    by_run_key = group(known, lambda item: item.result.run_key)
    known = [same[0] for same in by_run_key.values() if len({item.result.outcomes_sha256 for item in same}) == 1]
    known.sort(key=lambda item: item.result.run_key)
    claims: list[Claim] = []
    by_data = group(known, lambda item: (item.result.evaluation.dataset.name, item.result.found.dataset_sha256))
    for (dataset, digest), same in sorted(by_data.items()):
        drafts = _drafts(dataset, digest, one_weights_a_seed(same)[0])
        claims += _answered(drafts)
    for dataset in PAPER_DATASETS:
        if dataset not in {name for name, _ in by_data}:
            why = f"no results on data called {dataset}; no other data answers for it"
            claims += [
                Claim(dataset, None, "clean", PAIRS[0], why=why),
                Claim(dataset, None, "robust", PAIRS[0], why=why),
                *(Claim(dataset, None, "slope", (model,), why=why) for model in reversed(PAIRS[0])),
            ]
    return claims


def word_of(
    *, adjusted_p: float, high: float, weak: Sequence[str], flags: Sequence[str], missing: str, limit: str
) -> ClaimVerdict:
    """The word for a claim. `weak` names the single attacks under which it is supported, `missing` what is missing for
    any answer, `limit` a floor or ceiling; `high` is the upper bound in points."""
    if missing or limit:
        return ClaimVerdict.undecided
    if adjusted_p < LEVEL:
        return ClaimVerdict.masked if flags else ClaimVerdict.supported
    if weak:
        return ClaimVerdict.masked
    return ClaimVerdict.not_supported if high < LEAST_GAIN else ClaimVerdict.undecided


def _drafts(dataset: str, digest: str, stored: Sequence[StoredResult]) -> list[_Draft]:
    """The family of a data set: clean gain, robust gain a norm, slope a norm for each model of the first pair."""
    sections = sections_of(stored)
    main = [section for section in sections if (section.attack, section.arm) == (WORST_CASE, Arm.fixed_step)]
    fixed = [section for section in sections if section.arm == Arm.fixed_step]
    present = {key.model for section in fixed for key in section.cells}
    norms: list[Norm | None] = list(dict.fromkeys(section.norm for section in main))
    drafts: list[_Draft] = []

    def add(kind: Kind, models: tuple[str, ...], norm: Norm | None) -> None:
        section = _best(sections, Arm.fixed_step, norm, models, under_any=kind == "clean")
        blank = Claim(dataset, digest, kind, models)
        if section is not None and kind != "clean":
            blank = replace(blank, norm=section.norm, epsilon=section.epsilon)
        drafts.append(_draft(blank, section, sections, stored))

    for pair in PAIRS:
        if pair is PAIRS[0] or present.intersection(pair):
            add("clean", pair, None)
            for norm in norms or [None]:
                add("robust", pair, norm)
    for norm in norms or [None]:
        for model in reversed(PAIRS[0]):
            add("slope", (model,), norm)
    return drafts


def _best(
    sections: Sequence[ComparableCells],
    arm: Arm,
    norm: Norm | None,
    models: tuple[str, ...],
    *,
    under_any: bool = False,
) -> ComparableCells | None:
    """The worst case of an arm with the most cells that all these models have, then with the most images: in a norm, or
    in any. Where what is asked is the same `under_any` attack, that of fgsm or pgd if it has more. None where there is
    none."""

    def size(section: ComparableCells) -> tuple[int, int, bool, int]:
        frame = frame_of(section, models)
        whole = (0, 0) if frame is None else (len(frame.seeds) * len(frame.horizons), frame.images)
        return (*whole, section.attack == WORST_CASE, len(section.cells))

    asked = [
        section
        for section in sections
        if section.arm == arm and norm in (None, section.norm) and (under_any or section.attack == WORST_CASE)
    ]
    return max(reversed(asked), key=size, default=None)


def _answered(drafts: Sequence[_Draft]) -> list[Claim]:
    """Drafts of one family with adjusted p and word."""
    adjusted = holm([draft.p for draft in drafts])
    under = {
        name: holm([draft.weak.get(name, 1.0 if draft.claim.kind != "clean" else draft.p) for draft in drafts])
        for name in SINGLE_ATTACKS
    }
    claims = []
    for index, draft in enumerate(drafts):
        claim, p = draft.claim, adjusted[index]
        weak = [name for name in SINGLE_ATTACKS if name in draft.weak and under[name][index] < LEVEL]
        high = claim.estimate.high if claim.estimate else math.inf
        word = word_of(adjusted_p=p, high=high, weak=weak, flags=claim.flags, missing=draft.missing, limit=draft.limit)
        supported_under = f"supported under {' and '.join(weak)}"
        if draft.missing or draft.limit:
            why = draft.missing or draft.limit + (f"; {supported_under}" if weak else "")
        elif word is ClaimVerdict.supported:
            why = f"adjusted p below {LEVEL:g}, no flag that speaks of the model"
        elif word is ClaimVerdict.masked:
            why = f"flagged: {', '.join(claim.flags)}" if p < LEVEL else f"{supported_under}, not in the worst case"
        elif word is ClaimVerdict.not_supported:
            why = f"the upper bound, {high:+.3g}, is under {LEAST_GAIN:g} point"
            if high < 0:
                why += ", and under 0 (not tested)"
        else:
            why = f"adjusted p not below {LEVEL:g}, upper bound not under {LEAST_GAIN:g} point"
        shown = None if draft.missing else p
        claims.append(replace(claim, word=word, why=why, adjusted_p=shown))
    return claims


def _draft(
    blank: Claim, section: ComparableCells | None, sections: Sequence[ComparableCells], stored: Sequence[StoredResult]
) -> _Draft:
    frame = None if section is None else frame_of(section, blank.models)
    if section is None or frame is None:
        return _Draft(blank, _absent(section, blank), "", 1.0, {})
    missing = missing_of(frame, blank.kind)
    counted = _counted(blank)
    claim = replace(
        blank,
        attack=section.label,
        horizons=frame.horizons,
        seeds=frame.seeds,
        flags=_flags(frame, stored),
        files=tuple(dict.fromkeys(section.cells[key].path for key in frame.keys)),
    )
    if not frame.seeds or not frame.images or (blank.kind == "slope" and len(frame.horizons) < 2):
        return _Draft(claim, missing, "", 1.0, {})
    letters = cell_letters(frame)
    found = _figure(blank, frame, letters)
    claim = replace(
        claim,
        estimate=found,
        relative=None if blank.kind == "slope" else relative_gain(letters, blank.models, counted),
        beside=tuple(_beside(claim, frame, letters, sections)),
    )
    p = 1.0 if missing or found.p is None else found.p
    weak = {} if missing or blank.kind == "clean" else _weak(frame, blank, sections)
    return _Draft(claim, missing, limit_of(letters, frame, counted), p, weak)


def _absent(section: ComparableCells | None, claim: Claim) -> str:
    results = "results" if claim.kind == "clean" else "worst-case results"
    if section is None:
        return f"no {results} of {' and '.join(claim.models)} trained and evaluated at one horizon"
    present = {key.model for key in section.cells}
    absent = [model for model in claim.models if model not in present]
    return f"no {results} of {' and '.join(absent)}" if absent else "no horizon that both models have"


def _flags(frame: Frame, stored: Sequence[StoredResult]) -> tuple[str, ...]:
    """The flags that speak of a model compared, from all results of its weights, horizon and solver: a diagnosis is a
    result of its own."""
    compared = {_identity(frame.section.cells[key]) for key in frame.keys}
    return tuple(
        sorted(
            {
                f"{flag} ({item.result.evaluation.model.name})"
                for item in stored
                if _identity(item) in compared
                for flag in item.result.flags
                if not speaks_of_settings(flag, item)
            }
        )
    )


def _identity(item: StoredResult) -> tuple[Any, ...]:
    evaluation, found = item.result.evaluation, item.result.found
    return evaluation.model.name, found.weights_sha256, evaluation.horizon, evaluation.solver


def _weak(frame: Frame, claim: Claim, sections: Sequence[ComparableCells]) -> dict[str, float]:
    """The p of a claim under each single attack, over the same cells and images; absent where cells or images are."""
    found: dict[str, float] = {}
    for section in sections:
        if section.attack not in SINGLE_ATTACKS or (section.norm, section.arm) != (
            frame.section.norm,
            frame.section.arm,
        ):
            continue
        same = replace(frame, section=section)
        if section.epsilon != frame.section.epsilon or not set(same.keys) <= set(section.cells):
            continue
        if any(_identity(section.cells[key]) != _identity(frame.section.cells[key]) for key in same.keys):
            continue
        ranges = [image_range(section.cells[key]) for key in same.keys]
        if any(start > frame.first or end < frame.first + frame.images for start, end in ranges):
            continue
        letters = cell_letters(same)
        p = _figure(claim, same, letters).p
        if p is not None and not limit_of(letters, same, ROBUST):
            found[section.attack] = min(p, found.get(section.attack, 1.0))
    return found


def _beside(claim: Claim, frame: Frame, letters: Letters, sections: Sequence[ComparableCells]) -> list[Beside]:
    """The confounders: images correct in every cell, an arm of equal NFE, an arm with an adaptive solver."""
    import numpy as np

    found = []
    if claim.kind != "clean":
        always = np.all([np.isin(cell, list(CORRECT)) for cell in letters.values()], axis=0)
        kept = {key: cell[always] for key, cell in letters.items()}
        if always.any():
            found.append(Beside("correct in every cell", _figure(claim, frame, kept), seeds=frame.seeds))
        else:
            found.append(Beside("correct in every cell", None, "no image is"))
    for arm in (Arm.equal_nfe, Arm.adaptive):
        clean = claim.kind == "clean"
        section = _best(sections, arm, None if clean else frame.section.norm, claim.models, under_any=clean)
        other = None if section is None else frame_of(section, claim.models)
        if other is None or not other.seeds or not other.images or (claim.kind == "slope" and len(other.horizons) < 2):
            found.append(Beside(arm.value, None, "no results"))
        else:
            found.append(Beside(arm.value, _figure(claim, other, cell_letters(other)), seeds=other.seeds))
    return found


def _figure(claim: Claim, frame: Frame, letters: Letters) -> Estimate:
    weights = weights_of(claim.kind, claim.models, frame.horizons)
    return estimate(measure(letters, weights, frame.seeds, _counted(claim)))


def _counted(claim: Claim) -> str:
    return CORRECT if claim.kind == "clean" else ROBUST
