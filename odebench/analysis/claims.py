"""The claims of the project, answered from results alone, by the rules and in the words of docs/protocol.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from odebench.analysis import claim_figures, contrasts
from odebench.analysis.claim_figures import Beside, counted, figure
from odebench.analysis.comparable_cells import SINGLE_ATTACKS, Arm, ComparableCells, comparable_cells
from odebench.analysis.contrasts import Estimate, Kind
from odebench.leaderboard.build import WORST_CASE, one_weights_a_seed
from odebench.leaderboard.grouping import group
from odebench.leaderboard.union import StoredResult
from odebench.numerics.statistics import holm
from odebench.protocol.spec import Norm

PAIRS = (("kd-ode", "ode"), ("kd-ode-stemless", "ode-stemless"))
"""Student and baseline: the same model, once distilled and once trained on labels alone."""
PAPER_DATASETS = ("cifar10", "svhn")
"""Only results on data of exactly these names answer what the paper says of them."""
LEVEL = 0.05
LEAST_GAIN = 1.0
"""Points: a smaller gain is not worth the name."""


class ClaimVerdict(str, Enum):
    """The answer to a claim."""

    supported = "supported"
    masked = "masked"
    not_supported = "not supported"
    undecided = "undecided"
    not_run = "not run"


@dataclass(frozen=True)
class Claim:
    """One claim on one data set, with what it rests on.

    `models` are student and baseline, or the one model of a slope. `relative` is the gain relative to the baseline.
    `adjusted_p` is Holm's over the family of the data set. `why` tells in one line how the word came about.
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
    """A claim before the correction for its family: `weak` holds the p under each of the SINGLE_ATTACKS."""

    claim: Claim
    missing: str
    limit: str
    p: float
    weak: Mapping[str, float]


def claims_of(stored: Sequence[StoredResult]) -> list[Claim]:
    """All claims, by data set; at the end those that the paper makes of data sets without any result.

    Only results on test images count. Of each train seed those of the newest weights count, and an evaluation that
    was stored with two different outcomes is left out (both are problems that the reader of results names).
    """
    known = [item for item in stored if item.evaluation.dataset.split == "test"]
    by_run_key = group(known, lambda item: item.result.run_key)
    known = [same[0] for same in by_run_key.values() if len({item.result.outcomes_sha256 for item in same}) == 1]
    known.sort(key=lambda item: item.result.run_key)
    claims: list[Claim] = []
    by_data = group(known, lambda item: (item.evaluation.dataset.name, item.result.found.dataset_sha256))
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
    an answer, `limit` a floor or ceiling; `high` is the upper bound in points."""
    if missing or limit:
        return ClaimVerdict.undecided
    if adjusted_p < LEVEL:
        return ClaimVerdict.masked if flags else ClaimVerdict.supported
    if weak:
        return ClaimVerdict.masked
    return ClaimVerdict.not_supported if high < LEAST_GAIN else ClaimVerdict.undecided


def _drafts(dataset: str, digest: str, stored: Sequence[StoredResult]) -> list[_Draft]:
    """The family of a data set: for each pair the clean gain and the robust gain in each norm; for each model of the
    first pair the slope in each norm."""
    every = comparable_cells(stored)
    fixed = [comparable for comparable in every if comparable.arm == Arm.fixed_step]
    present = {key.model for comparable in fixed for key in comparable.cells}
    worst = [comparable.norm for comparable in fixed if comparable.attack == WORST_CASE]
    norms: list[Norm | None] = list(dict.fromkeys(worst)) or [None]
    drafts: list[_Draft] = []

    def add(kind: Kind, models: tuple[str, ...], norm: Norm | None) -> None:
        comparable = claim_figures.best_cells(every, Arm.fixed_step, norm, models, under_any=kind == "clean")
        blank = Claim(dataset, digest, kind, models)
        if comparable is not None and kind != "clean":
            blank = replace(blank, norm=comparable.norm, epsilon=comparable.epsilon)
        drafts.append(_draft(blank, comparable, every, stored))

    for pair in PAIRS:
        if pair is PAIRS[0] or present.intersection(pair):
            add("clean", pair, None)
            for norm in norms:
                add("robust", pair, norm)
    for norm in norms:
        for model in reversed(PAIRS[0]):
            add("slope", (model,), norm)
    return drafts


def _answered(drafts: Sequence[_Draft]) -> list[Claim]:
    """The claims of one family, with adjusted p and word."""
    adjusted = holm([draft.p for draft in drafts])
    under = {
        name: holm([draft.weak.get(name, 1.0 if draft.claim.kind != "clean" else draft.p) for draft in drafts])
        for name in SINGLE_ATTACKS
    }
    claims = []
    for index, (draft, p) in enumerate(zip(drafts, adjusted, strict=True)):
        claim = draft.claim
        weak = [name for name in SINGLE_ATTACKS if name in draft.weak and under[name][index] < LEVEL]
        high = claim.estimate.high if claim.estimate else math.inf
        word = word_of(adjusted_p=p, high=high, weak=weak, flags=claim.flags, missing=draft.missing, limit=draft.limit)
        why = _why(draft, word, p, high, f"supported under {' and '.join(weak)}" if weak else "")
        claims.append(replace(claim, word=word, why=why, adjusted_p=None if draft.missing else p))
    return claims


def _why(draft: _Draft, word: ClaimVerdict, p: float, high: float, supported_under: str) -> str:
    """How the word of a claim came about, in one line."""
    if draft.missing or draft.limit:
        return draft.missing or "; ".join([draft.limit, *([supported_under] if supported_under else [])])
    if word is ClaimVerdict.supported:
        return f"adjusted p below {LEVEL:g}, no flag that speaks of the model"
    if word is ClaimVerdict.masked:
        flagged = f"flagged: {', '.join(draft.claim.flags)}"
        return flagged if p < LEVEL else f"{supported_under}, not in the worst case"
    if word is ClaimVerdict.not_supported:
        below = ", and under 0 (not tested)" if high < 0 else ""
        return f"the upper bound, {high:+.3g}, is under {LEAST_GAIN:g} point{below}"
    return f"adjusted p not below {LEVEL:g}, upper bound not under {LEAST_GAIN:g} point"


def _draft(
    blank: Claim, comparable: ComparableCells | None, every: Sequence[ComparableCells], stored: Sequence[StoredResult]
) -> _Draft:
    kind = blank.kind
    compared = None if comparable is None else contrasts.compared_cells(comparable, blank.models)
    if comparable is None or compared is None:
        return _Draft(blank, _absent(comparable, blank), "", 1.0, {})
    missing = contrasts.missing_of(compared, kind)
    claim = replace(
        blank,
        attack=comparable.label,
        horizons=compared.horizons,
        seeds=compared.seeds,
        flags=claim_figures.model_flags(compared, stored),
        files=tuple(dict.fromkeys(comparable.cells[key].path for key in compared.keys)),
    )
    if not claim_figures.has_figure(kind, compared):
        return _Draft(claim, missing, "", 1.0, {})
    outcomes = contrasts.cell_outcomes(compared)
    found = figure(kind, compared, outcomes)
    claim = replace(
        claim,
        estimate=found,
        relative=None if kind == "slope" else contrasts.relative_gain(outcomes, blank.models, counted(kind)),
        beside=tuple(claim_figures.without_confounders(kind, compared, outcomes, every)),
    )
    p = 1.0 if missing or found.p is None else found.p
    weak = {} if missing or kind == "clean" else claim_figures.p_under_single_attacks(kind, compared, every)
    return _Draft(claim, missing, contrasts.limit_of(outcomes, compared, counted(kind)), p, weak)


def _absent(comparable: ComparableCells | None, claim: Claim) -> str:
    """Which results a claim would need that are not there."""
    results = "results" if claim.kind == "clean" else "worst-case results"
    if comparable is None:
        return f"no {results} of {' and '.join(claim.models)} trained and evaluated at one horizon"
    present = {key.model for key in comparable.cells}
    absent = [model for model in claim.models if model not in present]
    return f"no {results} of {' and '.join(absent)}" if absent else "no horizon that both models have"
