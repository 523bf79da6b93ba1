"""The cells that one claim may compare: results of one data set, norm and attack with equal settings.

A cell is one model at one horizon (trained and evaluated at it) with one train seed, and has one result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pydantic import JsonValue

from odebench.io.canonical_json import canonical_json
from odebench.leaderboard.build import WORST_CASE, attack_label
from odebench.leaderboard.grouping import group
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import Norm

SINGLE_ATTACKS = ("fgsm", "pgd")
"""Attacks that are too weak for a claim to rest on, in the order in which they are named."""


class Arm(str, Enum):
    """How the field is integrated over the horizons that are compared."""

    fixed_step = "fixed step"
    equal_nfe = "equal NFE"
    adaptive = "adaptive solver"


class CellKey(NamedTuple):
    """One model at one horizon with one train seed."""

    model: str
    horizon: float
    seed: int


@dataclass(frozen=True)
class ComparableCells:
    """The cells of one arm under one attack, at the epsilon that claims are about."""

    norm: Norm
    epsilon: float
    attack: str
    label: str
    arm: Arm
    cells: Mapping[CellKey, StoredResult]


def comparable_cells(stored: Sequence[StoredResult]) -> list[ComparableCells]:
    """All cells that can be compared, from results of one data set: for each norm, attack with its settings, and
    solver; and for each NFE that fixed steps keep equal at two or more horizons."""
    known = [item for item in stored if _cell_key(item) is not None]
    found: list[ComparableCells] = []
    for (norm, attack), same in sorted(group(known, _attack).items()):
        if attack not in (WORST_CASE, *SINGLE_ATTACKS):
            continue
        for _, alike in sorted(group(same, _settings).items()):
            first = alike[0]
            epsilon = first.evaluation.threat_model.middle_epsilon
            for arm in Arm:
                for cells in _arm(arm, alike):
                    found.append(ComparableCells(norm, epsilon, attack, attack_label(first), arm, cells))
    return found


def _arm(arm: Arm, stored: Sequence[StoredResult]) -> list[dict[CellKey, StoredResult]]:
    """The cells of each solver of an arm, or of each method and NFE where that is equal."""
    of_arm: dict[str, list[StoredResult]] = defaultdict(list)
    for item in stored:
        solver, nfe = item.evaluation.solver, item.result.nfe.clean
        if solver is None or solver.adaptive != (arm is Arm.adaptive):
            continue
        if arm is not Arm.equal_nfe:
            of_arm[canonical_json(solver)].append(item)
        elif nfe is not None:
            of_arm[f"{solver.method} {nfe.mean:g}"].append(item)
    found = [_cells(items) for _, items in sorted(of_arm.items())]
    return [cells for cells in found if arm is not Arm.equal_nfe or len({key.horizon for key in cells}) > 1]


def _cells(stored: Iterable[StoredResult]) -> dict[CellKey, StoredResult]:
    """One result per cell: of several sets of arguments of one model that with the most cells, then the shortest; of
    several slices of the images the largest."""
    cells: dict[CellKey, StoredResult] = {}
    for of_model in group(stored, lambda item: item.evaluation.model.name).values():
        by_arguments: list[tuple[str, dict[CellKey, StoredResult]]] = []
        for arguments, items in group(
            of_model, lambda item: canonical_json(item.evaluation.model.other_arguments)
        ).items():
            found: dict[CellKey, StoredResult] = {}
            for item in sorted(items, key=lambda item: (item.evaluation.dataset.n, item.result.run_key)):
                if (key := _cell_key(item)) is not None:
                    found[key] = item
            by_arguments.append((arguments, found))
        cells |= min(by_arguments, key=lambda pair: (-len(pair[1]), len(pair[0]), pair[0]))[1]
    return dict(sorted(cells.items()))


def _cell_key(item: StoredResult) -> CellKey | None:
    """The cell of a result; None without a horizon, with another train horizon, or without a train seed."""
    evaluation = item.evaluation
    seed = evaluation.model.train_seed
    if evaluation.horizon is None or evaluation.train_horizon != evaluation.horizon or type(seed) is not int:
        return None
    return CellKey(evaluation.model.name, evaluation.horizon, seed)


def _attack(item: StoredResult) -> tuple[Norm, str]:
    evaluation = item.evaluation
    return evaluation.threat_model.norm, evaluation.attack.name


def _settings(item: StoredResult) -> str:
    """What must be equal in every cell: all but model, horizon, solver, images, and sources, which follow the seed."""
    evaluation = item.evaluation
    attack = evaluation.attack.model_dump(mode="json", exclude={"sources"})
    epsilons: list[JsonValue] = [*evaluation.threat_model.epsilons]
    return canonical_json([attack, epsilons, evaluation.chunk, evaluation.precision])
