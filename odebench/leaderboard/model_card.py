"""A model card: what a model is, what was run on it, what its checks found, images under attack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from odebench.errors import OdebenchError
from odebench.leaderboard.example_images import ExampleStrip
from odebench.leaderboard.grouping import group
from odebench.leaderboard.table import Cell, Row, Table
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import Norm, middle
from odebench.result.schema import Check, Figure, Result

AGAIN = "where the result exists, add --force, or --results with another folder"
"""What to know of a command that makes a result again: finished evaluations are skipped."""
STATUSES = ("flag", "pass", "skipped")
"""The worst first."""


@dataclass(frozen=True)
class ClaimedAndMeasured:
    """The robust accuracy that an entry claims for one evaluation, and that of the published result about the same
    one; null where there is none."""

    attack: str
    norm: Norm
    epsilon: float
    horizon: float | None
    train_seed: int
    n: int
    claimed: float
    measured: Figure | None
    path: Path | None

    @property
    def agrees(self) -> bool | None:
        """Whether the claim lies in the measured 95% interval; null where nothing was measured."""
        return None if self.measured is None else self.measured.low <= self.claimed <= self.measured.high


@dataclass(frozen=True)
class Provenance:
    """`commands` gives the command lines that make results again, as few as possible, and how many of the results they
    make; `trained` how the model of a result was trained, as names and texts; `claimed` what the entry of a model
    claims, beside the results given; `adversarial` whether its entry trains on adversarial images. `problems` are the
    errors of the entries that have been asked for so far and could not be read."""

    commands: Callable[[Sequence[Result]], tuple[Sequence[str], int]]
    trained: Callable[[Result], Mapping[str, str]]
    claimed: Callable[[str, Sequence[StoredResult]], Iterable[ClaimedAndMeasured]]
    adversarial: Callable[[str], bool]
    problems: Sequence[OdebenchError] = ()


NO_PROVENANCE = Provenance(lambda _: ((), 0), lambda _: {}, lambda *_: (), lambda _: False)


@dataclass(frozen=True)
class CheckSummary:
    """One check over all results of a model: the worst outcome with its result, and how often each status occurred."""

    check: Check
    counts: Mapping[str, int]
    item: StoredResult


@dataclass(frozen=True)
class ModelCard:
    """A model on one data set with all its results. `label` distinguishes it; `headline` is its cell of the highest
    robust accuracy in `table`, the table of the middle epsilon of its first norm."""

    label: str
    table: Table
    row: Row
    headline: Cell
    results: tuple[StoredResult, ...]
    checks: tuple[CheckSummary, ...]
    flags: Mapping[str, str]
    strip: ExampleStrip | None


def model_cards(tables: Sequence[Table], strips: Sequence[ExampleStrip]) -> list[ModelCard]:
    """A card for each model of each data set: by data set, then as the table of the middle epsilon ranks them."""
    by_run_key = {strip.examples.run_key: strip for strip in strips}
    found: list[ModelCard] = []
    for same in group(tables, lambda table: (table.dataset, table.split, table.dataset_sha256)).values():
        # the middle epsilon of each norm first (linf before l2), then the others
        norms = group(sorted(same, key=lambda table: table.norm, reverse=True), lambda table: table.norm)
        middles = [middle(sorted(of_norm, key=lambda table: table.epsilon)) for of_norm in norms.values()]
        ordered = [*middles, *(table for table in same if table not in middles)]
        rows = [(table, row) for table in ordered for row in table.rows]
        for of_model in group(rows, lambda pair: pair[1].identity).values():
            table, row = of_model[0]
            cells = [cell for _, one in of_model for cell in one.cells.values()]
            results = tuple({item.path: item for cell in cells for item in cell.results}.values())
            shown = (by_run_key[item.result.run_key] for item in results if item.result.run_key in by_run_key)
            found.append(
                ModelCard(
                    label=max((one.label for _, one in of_model), key=len),
                    table=table,
                    row=row,
                    headline=max(row.cells.values(), key=lambda cell: (cell.ranked, cell.robust_accuracy.value)),
                    results=results,
                    checks=_checks(results),
                    flags={flag: why for cell in cells for flag, why in cell.flags.items()},
                    strip=next(shown, None),
                )
            )
    return found


def _checks(results: Sequence[StoredResult]) -> tuple[CheckSummary, ...]:
    pairs = [(check, item) for item in results for check in item.result.checks]
    found = []
    for _, same in sorted(group(pairs, lambda pair: (pair[0].id, pair[0].name)).items()):
        check, item = min(same, key=lambda pair: (STATUSES.index(pair[0].status), -(pair[0].figure or 0.0)))
        counts: Counter[str] = Counter(one.status for one, _ in same)
        found.append(CheckSummary(check, {status: counts[status] for status in STATUSES if counts[status]}, item))
    return tuple(found)
