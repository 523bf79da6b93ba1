"""The figures of one claim: its estimate, the same under single attacks and without a confounder, and its flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from odebench.analysis import contrasts
from odebench.analysis.comparable_cells import SINGLE_ATTACKS, Arm, ComparableCells
from odebench.analysis.contrasts import CellOutcomes, ComparedCells, Estimate, Kind
from odebench.leaderboard.build import WORST_CASE, speaks_of_settings
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import Norm
from odebench.result.outcome import CORRECT, ROBUST


@dataclass(frozen=True)
class Beside:
    """The same figure with a confounder removed, with its train seeds; or null and what is missing for it."""

    name: str
    estimate: Estimate | None
    seeds: tuple[int, ...] = ()
    missing: str = ""


def best_cells(
    every: Sequence[ComparableCells],
    arm: Arm,
    norm: Norm | None,
    models: tuple[str, ...],
    *,
    under_any: bool = False,
) -> ComparableCells | None:
    """Of the cells of an arm under the worst case those with the most cells that all these models have, then with the
    most images; in one norm, or in any where that is null. None where there are none.

    Clean images are the same under any attack: `under_any` takes those of fgsm or pgd where they are more.
    """

    def size(comparable: ComparableCells) -> tuple[int, int, bool, int]:
        compared = contrasts.compared_cells(comparable, models)
        whole = (0, 0) if compared is None else (len(compared.seeds) * len(compared.horizons), compared.images)
        return (*whole, comparable.attack == WORST_CASE, len(comparable.cells))

    suitable = [
        comparable
        for comparable in every
        if comparable.arm == arm and norm in (None, comparable.norm) and (under_any or comparable.attack == WORST_CASE)
    ]
    return max(reversed(suitable), key=size, default=None)


def model_flags(compared: ComparedCells, stored: Sequence[StoredResult]) -> tuple[str, ...]:
    """The flags that speak of a model compared, from all results of its weights, horizon and solver."""
    identities = {_identity(compared.comparable.cells[key]) for key in compared.keys}
    found = {
        f"{flag} ({item.evaluation.model.name})"
        for item in stored
        if _identity(item) in identities
        for flag in item.result.flags
        if not speaks_of_settings(flag, item)
    }
    return tuple(sorted(found))


def _identity(item: StoredResult) -> tuple[Any, ...]:
    evaluation, found = item.evaluation, item.result.found
    return evaluation.model.name, found.weights_sha256, evaluation.horizon, evaluation.solver


def p_under_single_attacks(kind: Kind, compared: ComparedCells, every: Sequence[ComparableCells]) -> dict[str, float]:
    """The p of a claim under each single attack over the same cells and images; without those that lack some."""
    found: dict[str, float] = {}
    own = compared.comparable
    for comparable in every:
        threats = [(each.norm, each.arm, each.epsilon) for each in (comparable, own)]
        if comparable.attack not in SINGLE_ATTACKS or threats[0] != threats[1]:
            continue
        same = replace(compared, comparable=comparable)
        if not set(same.keys) <= set(comparable.cells):
            continue
        if any(_identity(comparable.cells[key]) != _identity(own.cells[key]) for key in same.keys):
            continue
        ranges = [contrasts.image_range(comparable.cells[key]) for key in same.keys]
        if any(start > compared.first or end < compared.first + compared.images for start, end in ranges):
            continue
        outcomes = contrasts.cell_outcomes(same)
        p = figure(kind, same, outcomes).p
        if p is not None and not contrasts.limit_of(outcomes, same, ROBUST):
            found[comparable.attack] = min(p, found.get(comparable.attack, 1.0))
    return found


def without_confounders(
    kind: Kind, compared: ComparedCells, outcomes: CellOutcomes, every: Sequence[ComparableCells]
) -> list[Beside]:
    """The same figure on the images correct in every cell, at equal NFE, and with an adaptive solver."""
    import numpy as np

    found = []
    if kind != "clean":
        always = np.all([np.isin(cell, list(CORRECT)) for cell in outcomes.values()], axis=0)
        kept = {key: cell[always] for key, cell in outcomes.items()}
        if always.any():
            found.append(Beside("correct in every cell", figure(kind, compared, kept), seeds=compared.seeds))
        else:
            found.append(Beside("correct in every cell", None, missing="no image is"))
    for arm in (Arm.equal_nfe, Arm.adaptive):
        norm = None if kind == "clean" else compared.comparable.norm
        comparable = best_cells(every, arm, norm, compared.models, under_any=kind == "clean")
        other = None if comparable is None else contrasts.compared_cells(comparable, compared.models)
        if other is None or not has_figure(kind, other):
            found.append(Beside(arm.value, None, missing="no results"))
        else:
            found.append(Beside(arm.value, figure(kind, other, contrasts.cell_outcomes(other)), seeds=other.seeds))
    return found


def has_figure(kind: Kind, compared: ComparedCells) -> bool:
    """Whether there are seeds, images and, for a slope, horizons enough for a figure."""
    return bool(compared.seeds and compared.images and (kind != "slope" or len(compared.horizons) > 1))


def figure(kind: Kind, compared: ComparedCells, outcomes: CellOutcomes) -> Estimate:
    """The estimate of a claim from the outcomes of its cells."""
    weights = contrasts.weights_of(kind, compared.models, compared.horizons)
    return contrasts.estimate(contrasts.measure(outcomes, weights, compared.seeds, counted(kind)))


def counted(kind: Kind) -> str:
    """The outcomes that a claim counts."""
    return CORRECT if kind == "clean" else ROBUST
