"""Two models side by side: accuracies on the same images and train seeds, attack by attack, horizon by horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from odebench.errors import UsageError, unknown_name
from odebench.leaderboard.build import WORST_CASE, attack_label
from odebench.leaderboard.rank import Shares, common_attacks, paired_shares
from odebench.leaderboard.table import Cell, Row, Table, in_order
from odebench.numerics.crossed import crossed_mean
from odebench.numerics.statistics import paired_interval, student
from odebench.protocol.spec import middle
from odebench.result.outcome import CORRECT, ROBUST

CLEAN = "clean"
"""The name of the rows that count what is classified correctly without an attack."""
DIAGNOSES = ("diagnosis", "quick-diagnosis")
"""Attacks that look at a model, and are no measure of it."""


@dataclass(frozen=True)
class ModelDifference:
    """One attack at one horizon, or `joined` over horizons: accuracies in [0, 1] on `images` images and `seeds` train
    seeds that both models have, and first minus second with its paired 95% interval."""

    attack: str
    horizon: float | None
    joined: bool
    images: int
    seeds: int
    first: float
    second: float
    difference: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """What the interval says of the first model: better, worse, or no difference shown."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"


@dataclass(frozen=True)
class ModelComparison:
    """Two models on one data set in one norm at its middle epsilon. `unranked` names what has no rank there."""

    table: Table
    rows: tuple[ModelDifference, ...]
    unranked: tuple[str, ...]


def compare_models(tables: Sequence[Table], first: str, second: str) -> list[ModelComparison]:
    """Two models in each of the tables of a data set and norm that holds both, at the middle epsilon.

    A model is named as in the leaderboard: by its name, with its arguments where these are not the usual ones. Raises
    UsageError where the models have nothing in common.
    """
    groups: dict[tuple[str, str, str, str], list[Table]] = {}
    for table in tables:
        key = (table.dataset, table.split, table.dataset_sha256, table.norm)
        groups.setdefault(key, []).append(table)
    found = []
    for same in groups.values():
        table = middle(sorted(same, key=lambda table: table.epsilon))
        one, other = (_row(table, name) for name in (first, second))
        rows = () if one is None or other is None else _differences(one, other, table.epsilon)
        if one is not None and other is not None and rows:
            found.append(ModelComparison(table, rows, _unranked(one) + _unranked(other)))
    if not found:
        known = sorted({name for table in tables for row in table.rows for name in (row.model, row.name)})
        for name in (first, second):
            if name not in known:
                raise unknown_name("model among these results:", name, known)
        raise UsageError(f"no result of {first} and {second} has data set, norm, attack and train seed in common")
    return found


def _row(table: Table, name: str) -> Row | None:
    """The usual row of a model: the one of this very name, else the first of this model."""
    rows = [row for row in table.usual if row.name == name] or [row for row in table.usual if row.model == name]
    return rows[0] if rows else None


def _differences(one: Row, other: Row, epsilon: float) -> tuple[ModelDifference, ...]:
    """The rows: what is classified correctly without an attack, the worst cases, then the other attacks."""
    horizons = in_order(one.cells.keys() & other.cells.keys())
    cells = [*one.cells.values()], [*other.cells.values()]
    labels = {
        attack_label(item)
        for cell in (*cells[0], *cells[1])
        for item in cell.results
        if item.evaluation.attack.name not in DIAGNOSES
    }
    found: list[ModelDifference] = []
    clean: list[list[ModelDifference]] = [[]]
    for label in sorted(labels, key=lambda label: (not label.startswith(WORST_CASE), label)):
        at = [horizon for horizon in horizons if label in common_attacks([one.cells[horizon]], [other.cells[horizon]])]
        pairs = {horizon: ([one.cells[horizon]], [other.cells[horizon]]) for horizon in at}
        joined = [one.cells[horizon] for horizon in at], [other.cells[horizon] for horizon in at]
        if not horizons and label in common_attacks(*cells):  # one model has a field and the other none
            joined = cells
        for name, counted in ((CLEAN, CORRECT), (label, ROBUST)):
            rows = [_difference(name, horizon, pair, label, epsilon, counted) for horizon, pair in pairs.items()]
            if len(joined[0]) > 1 or len(joined[1]) > 1:
                rows.append(_difference(name, None, joined, label, epsilon, counted, joined=True))
            kept = [row for row in rows if row is not None]
            clean.append(kept) if name == CLEAN else found.extend(kept)
    return (*max(clean, key=lambda rows: sum(row.images * row.seeds for row in rows)), *found)


def _difference(
    name: str,
    horizon: float | None,
    cells: tuple[Sequence[Cell], Sequence[Cell]],
    label: str,
    epsilon: float,
    counted: str,
    *,
    joined: bool = False,
) -> ModelDifference | None:
    pair = paired_shares(*cells, label, epsilon, counted=counted)
    if pair is None or pair[0].shape[1] < 2:
        return None
    first, second = pair
    difference, low, high = _interval(first - second)
    seeds, images = first.shape
    return ModelDifference(
        name, horizon, joined, images, seeds, float(first.mean()), float(second.mean()), difference, low, high
    )


def _interval(table: Shares) -> tuple[float, float, float]:
    """The mean of a table of differences and its 95% interval: over seeds and images, or of one seed over images."""
    if len(table) > 1:
        found = crossed_mean(table)
        return found.mean, *found.interval()
    values = [float(value) for value in table[0]]
    if set(values) <= {-1.0, 0.0, 1.0}:
        low, high = paired_interval(values.count(1.0), values.count(-1.0), len(values))
    else:
        low, high = student(values)
    return fmean(values), low, high


def _unranked(row: Row) -> tuple[str, ...]:
    """What a row has without a rank, such as "ode at T=2"."""
    return tuple(
        row.name if cell.horizon is None else f"{row.name} at T={cell.horizon:g}"
        for cell in row.cells.values()
        if not cell.ranked
    )
