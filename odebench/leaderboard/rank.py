"""The ranks of a table: 1 plus the number of rows that are significantly better (docs/protocol.md, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from math import hypot
from operator import and_, or_
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from odebench.leaderboard.build import WORST_CASE, attack_label
from odebench.leaderboard.grouping import group
from odebench.leaderboard.table import Cell, Row, Table
from odebench.leaderboard.union import StoredResult, image_set, union
from odebench.numerics.crossed import crossed_mean
from odebench.numerics.statistics import holm, sign_test
from odebench.result.outcome import ROBUST

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.05
Shares: TypeAlias = "np.ndarray[Any, Any]"
_BySeed: TypeAlias = "dict[int, np.ndarray[Any, Any]]"
"""The share of each image, by train seed."""


def ranks(table: Table) -> dict[int, int]:
    """The rank of each usual row that has one, by its number among them.

    A row stands for the mean over its ranked horizons. Two rows are compared on the train seeds and images that both
    have under one worst case, or without one, as where their efforts differ, under all attacks run on each; with one
    seed in common by the sign test over images. Rows without a train seed or an image in common are compared by their
    intervals.
    """
    better = {number: 0 for number, row in enumerate(table.usual) if _ranked(row)}
    for _, worse in significantly_better(table):
        better[worse] += 1
    return {number: 1 + count for number, count in better.items()}


def decided(table: Table) -> str:
    """How many differences between the ranked models of a table are significant, so that equal ranks can be understood,
    in a sentence; empty where there is none to make."""
    ranked = [row for row in table.usual if _ranked(row)]
    if len(ranked) < 2:
        return ""
    pairs, count = len(ranked) * (len(ranked) - 1) // 2, len(significantly_better(table))
    seeds = sorted({cell.seeds for row in ranked for cell in _ranked(row)})
    of = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"Of {pairs} difference{'s' * (pairs > 1)} between models {count or 'none'} {'are' if count > 1 else 'is'} "
        f"significant, with {of} train seed{'s' * (seeds[-1] > 1)}."
    )


def significantly_better(table: Table) -> set[tuple[int, int]]:
    """The pairs of usual rows, by their numbers, of which the first is significantly better than the second."""
    cells = {number: _ranked(row) for number, row in enumerate(table.usual)}
    known = {number: ranked for number, ranked in cells.items() if ranked}
    pairs = list(combinations(known, 2))
    found = [_difference(known[one], known[other], table.epsilon) for one, other in pairs]
    adjusted = zip(pairs, found, holm([p for _, p in found]), strict=True)
    return {pair if mean > 0 else pair[::-1] for pair, (mean, _), p in adjusted if p < LEVEL}


def _ranked(row: Row) -> list[Cell]:
    return [cell for cell in row.cells.values() if cell.ranked]


def _difference(one: Sequence[Cell], other: Sequence[Cell], epsilon: float) -> tuple[float, float]:
    """The paired difference of two rows with its two-sided p; 0 and 1 where they have nothing in common."""
    labels = [label for label in common_attacks(one, other) if label.startswith(WORST_CASE)]
    pairs = (pair for label in labels if (pair := paired_shares(one, other, label, epsilon)) is not None)
    pair = next(pairs, None) or _paired_unions(one, other, epsilon)
    if pair is None:
        return _difference_of_means(one, other)
    table = pair[0] - pair[1]
    if min(table.shape) > 1:
        found = crossed_mean(table)
        return found.mean, found.p
    mean, gained, lost = float(table.mean()), int((table > 0).sum()), int((table < 0).sum())
    return mean, sign_test(gained, lost) if mean * (gained - lost) > 0 else 1.0


def _difference_of_means(one: Sequence[Cell], other: Sequence[Cell]) -> tuple[float, float]:
    """The difference of rows without a train seed or an image in common, with its two-sided p, by the standard errors
    that their widest 95% intervals imply."""
    means = [fmean(cell.robust_accuracy.value for cell in side) for side in (one, other)]
    widths = [max(cell.robust_accuracy.high - cell.robust_accuracy.low for cell in side) for side in (one, other)]
    normal = NormalDist()
    error = hypot(*widths) / (2 * normal.inv_cdf(0.975))
    difference = means[0] - means[1]
    return difference, 2 * normal.cdf(-abs(difference) / error)


def _paired_unions(one: Sequence[Cell], other: Sequence[Cell], epsilon: float) -> tuple[Shares, Shares] | None:
    """For each side a table of shares in [0, 1], (train seeds, images): over the side's cells, how often an image that
    a worst case attacked is robust against all attacks run on it. None where the sides have no train seed or no such
    image in common."""
    import numpy as np

    sides = [[_unions(cell, epsilon) for cell in cells] for cells in (one, other)]
    cells = [cell for side in sides for cell in side]
    seeds = sorted(set.intersection(*map(set, cells)))
    images = reduce(and_, (cell[seed][1] for cell in cells for seed in seeds), -1)
    if images <= 0:
        return None
    places = [place for place in range(images.bit_length()) if images >> place & 1]
    first, second = (
        np.mean([[[cell[seed][0] >> place & 1 for place in places] for seed in seeds] for cell in side], axis=0)
        for side in sides
    )
    return first, second


def _unions(cell: Cell, epsilon: float) -> dict[int, tuple[int, int]]:
    """Of each train seed the images that are robust against all attacks run on it, and those that a worst case
    attacked."""
    found = {}
    for seed, same in group(cell.results, _seed).items():
        attacked = [
            image_set(item.result)
            for item in same
            if item.evaluation.attack.name == WORST_CASE and epsilon in item.evaluation.threat_model.epsilons
        ]
        found[seed] = union(same).at(epsilon)[ROBUST], reduce(or_, attacked, 0)
    return found


def _seed(item: StoredResult) -> int:
    seed = item.evaluation.model.train_seed
    return seed if isinstance(seed, int) else 0


def common_attacks(one: Sequence[Cell], other: Sequence[Cell]) -> list[str]:
    """The attacks, by label, that were run in each of the cells of both rows."""
    labels = [{attack_label(item) for item in cell.results} for cell in (*one, *other)]
    return sorted(set.intersection(*labels)) if labels else []


def paired_shares(
    one: Sequence[Cell], other: Sequence[Cell], label: str, epsilon: float, *, counted: str = ROBUST
) -> tuple[Shares, Shares] | None:
    """For each side a table of shares in [0, 1], (train seeds, images): over the side's cells, how often the letter of
    an image is among those `counted`. None where the sides have no train seed in common."""
    import numpy as np

    first, second = (_counted(cells, label, epsilon, counted) for cells in (one, other))
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    n = min(len(shares[seed]) for shares in (first, second) for seed in seeds)
    return np.stack([first[seed][:n] for seed in seeds]), np.stack([second[seed][:n] for seed in seeds])


def _counted(cells: Sequence[Cell], label: str, epsilon: float, counted: str) -> _BySeed:
    """The share of each image over the cells, for each train seed that all of them have under an attack."""
    import numpy as np

    each = [_counted_at(cell, label, epsilon, counted) for cell in cells]
    seeds = set.intersection(*(set(found) for found in each))
    n = min((len(found[seed]) for found in each for seed in seeds), default=0)
    return {seed: np.mean([found[seed][:n] for found in each], axis=0) for seed in seeds}


def _counted_at(cell: Cell, label: str, epsilon: float, counted: str) -> _BySeed:
    """Whether each image counts in the largest result of each train seed, from the first of the data set on."""
    import numpy as np

    found: dict[int, StoredResult] = {}
    for item in sorted(cell.results, key=lambda item: item.evaluation.dataset.n):
        asked = epsilon in item.evaluation.threat_model.epsilons and item.evaluation.dataset.offset == 0
        if attack_label(item) == label and asked:
            found[_seed(item)] = item
    return {
        seed: np.isin(
            list(next(each.outcomes for each in item.result.epsilons if each.epsilon == epsilon)), list(counted)
        )
        for seed, item in found.items()
    }
