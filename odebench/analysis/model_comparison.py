"""Two models side by side: accuracies on the same images and train seeds, attack by attack, horizon by horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from odebench.errors import UsageError, unknown_name
from odebench.leaderboard.build import WORST_CASE, attack_label, speaks_of_settings
from odebench.leaderboard.rank import Shares, common_attacks, paired_shares
from odebench.leaderboard.table import Cell, Row, Table, in_order
from odebench.numerics.crossed import crossed_mean
from odebench.numerics.statistics import paired_interval, student
from odebench.protocol.registration import LEAST_SEEDS
from odebench.protocol.spec import middle
from odebench.result.outcome import CORRECT, ROBUST

CLEAN = "clean"
"""The name of the rows that count what is classified correctly without an attack."""
DIAGNOSES = ("diagnosis", "quick-diagnosis")
"""Attacks that look at a model, and are no measure of it."""
_ZERO = 1e-12
"""Rounding errors of sums stay below this."""


@dataclass(frozen=True)
class ModelDifference:
    """One attack at one horizon, or `joined` over horizons: accuracies in [0, 1] on `images` images and `seeds` train
    seeds that both models have, and first minus second with its paired 95% interval: over seeds and images, of one
    seed over images alone. `flagged`: a flag speaks of a model there."""

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
    flagged: bool = False

    @property
    def word(self) -> str:
        """What the interval says of the first model: better, worse, or no difference shown; below LEAST_SEEDS train
        seeds it says so of their weights alone. No answer where a flag speaks of a model."""
        if self.flagged:
            return "flagged"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return ("on these weights: " if self.seeds < LEAST_SEEDS else "") + ("better" if self.low > 0 else "worse")


@dataclass(frozen=True)
class ModelComparison:
    """Two models on one data set in one norm at one epsilon. `unranked` names what has no rank there, `flags` what has
    flags, with them."""

    table: Table
    rows: tuple[ModelDifference, ...]
    unranked: tuple[str, ...]
    flags: tuple[str, ...]


def compare_models(tables: Sequence[Table], first: str, second: str) -> list[ModelComparison]:
    """Two models on each data set and norm that have both, at the middle epsilon at which they can be compared.

    A model is named as in the leaderboard: by its name, with its arguments where these are not the usual ones. Raises
    UsageError where the models have nothing in common.
    """
    groups: dict[tuple[str, str, str, str], list[Table]] = {}
    for table in tables:
        key = (table.dataset, table.split, table.dataset_sha256, table.norm)
        groups.setdefault(key, []).append(table)
    found = []
    for same in groups.values():
        compared = [_compared(table, first, second) for table in sorted(same, key=lambda table: table.epsilon)]
        if present := [one for one in compared if one is not None]:
            found.append(middle(present))
    if not found:
        known = sorted({name for table in tables for row in table.rows for name in (row.model, row.name)})
        for name in (first, second):
            if name not in known:
                raise unknown_name("model among these results:", name, known)
        raise UsageError(
            f"no result of {first} and {second} has data set, norm, epsilon, attack and train seed in common"
        )
    return found


def _compared(table: Table, first: str, second: str) -> ModelComparison | None:
    one, other = (_row(table, name) for name in (first, second))
    if one is None or other is None or not (rows := _differences(one, other, table.epsilon)):
        return None
    both = (one,) if one is other else (one, other)
    unranked = [title for row in both for title, cell in _titled(row) if not cell.ranked]
    flags = [f"{title}: {', '.join(cell.flags)}" for row in both for title, cell in _titled(row) if cell.flags]
    return ModelComparison(table, rows, tuple(unranked), tuple(flags))


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
    shares = float(first.mean()), float(second.mean())
    flagged = any(_is_flagged(cell) for side in cells for cell in side)
    return ModelDifference(name, horizon, joined, images, seeds, *shares, difference, low, high, flagged)


def _interval(table: Shares) -> tuple[float, float, float]:
    """The mean of a table of differences in [-1, 1] and its 95% interval: over seeds and images, or over images alone
    of one seed and where all differences are equal."""
    if len(table) > 1:
        found = crossed_mean(table)
        if found.standard_error > _ZERO:
            return found.mean, *_within(*found.interval())
    values = [float(value) for value in table.mean(axis=0)]
    if max(values) - min(values) > _ZERO and not set(values) <= {-1.0, 0.0, 1.0}:
        return fmean(values), *_within(*student(values))
    gained, lost = (round(sum(max(0.0, sign * value) for value in values)) for sign in (1, -1))
    return fmean(values), *paired_interval(gained, lost, len(values))


def _within(low: float, high: float) -> tuple[float, float]:
    return max(-1.0, low), min(1.0, high)


def _is_flagged(cell: Cell) -> bool:
    """Whether a flag of a result speaks of the model, and not of the settings of an attack."""
    return any(not speaks_of_settings(flag, item) for item in cell.results for flag in item.result.flags)


def _titled(row: Row) -> list[tuple[str, Cell]]:
    """The cells of a row with what they are called, such as "ode at T=2"."""
    return [
        (row.name if cell.horizon is None else f"{row.name} at T={cell.horizon:g}", cell) for cell in row.cells.values()
    ]
