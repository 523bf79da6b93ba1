"""Which results a reader wants to see: those of some data sets, norms, models and epsilons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from odebench.errors import UsageError, unknown_name
from odebench.leaderboard.table import Table
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import radius


@dataclass(frozen=True)
class Selection:
    """Data sets, norms and models by name, and radii; an empty one stands for all."""

    datasets: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    epsilons: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.datasets or self.norms or self.models or self.epsilons)

    def results(self, stored: Sequence[StoredResult]) -> list[StoredResult]:
        """The results of the data sets and models, in all norms, since what examines a model in one norm counts in
        others. Raises UsageError for a name that no result has."""
        found = _those(stored, self.datasets, "data set", lambda item: item.evaluation.dataset.name)
        found = _those(found, self.models, "model", lambda item: item.evaluation.model.name)
        _those(found, self.norms, "norm", lambda item: item.evaluation.threat_model.norm)
        return found

    def tables(self, tables: Sequence[Table]) -> list[Table]:
        """The tables of the norms and epsilons. Raises UsageError for an epsilon that no table of the norms has."""
        found = [table for table in tables if not self.norms or table.norm in self.norms]
        known = {table.epsilon for table in found}
        for epsilon in self.epsilons:
            if epsilon not in known:
                there = ", ".join(map(radius, sorted(known))) or "none"
                raise UsageError(f"no result among these is at epsilon {radius(epsilon)}; there are {there}")
        return [table for table in found if not self.epsilons or table.epsilon in self.epsilons]


def _those(
    stored: Sequence[StoredResult], names: Sequence[str], kind: str, name: Callable[[StoredResult], str]
) -> list[StoredResult]:
    known = {name(item) for item in stored}
    for one in names:
        if one not in known:
            raise unknown_name(f"{kind} among these results:", one, known)
    return [item for item in stored if not names or name(item) in names]
