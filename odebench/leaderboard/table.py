"""The leaderboard's values: a table for each data set and epsilon, rows of models, cells by horizon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from odebench.io.canonical_json import canonical_json
from odebench.leaderboard.credit import Credit
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import Norm, Solver
from odebench.result.schema import Figure


@dataclass(frozen=True)
class Cell:
    """What is known of one model at one horizon (null for a model without one) at the table's epsilon.

    Accuracies are means over `seeds` train seeds on the same `n` images. `attacks` tells on how many seeds and images
    each attack of the union was run. `examined`: the results of every seed, in any norm, hold the checks that look for
    masked gradients; only then is a cell ranked. NFE is a mean per image, null for a model without a field. `flags`
    have their meanings as values. `credits` name the authors of candidates made elsewhere, `not_counted` those
    whose candidates lower no figure, since their file has no address. `files` are the largest
    results by train seed; `results` are all that the union is made of.
    """

    horizon: float | None
    train_horizon: float | None
    ranked: bool
    n: int
    seeds: int
    clean_accuracy: Figure
    robust_accuracy: Figure
    nfe_clean: float | None
    nfe_adversarial: float | None
    attacks: Mapping[str, Reach]
    examined: bool
    flags: Mapping[str, str]
    credits: tuple[Credit, ...]
    not_counted: tuple[str, ...]
    files: Mapping[str, Path] = field(compare=False)
    results: tuple[StoredResult, ...] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Reach:
    """On how many train seeds of a cell an attack was run, and on how many of its images at least."""

    seeds: int
    images: int


@dataclass(frozen=True)
class Row:
    """A model at its horizons: `cells` by rising horizon, null last.

    `arguments` are those of the model without its train seed. `details` are what the name alone does not tell: the
    arguments, a train horizon that differs from the horizon, the solver where a name has several.
    """

    model: str
    arguments: Mapping[str, JsonValue]
    solver: Solver | None
    details: tuple[str, ...]
    cells: Mapping[float | None, Cell]

    @property
    def identity(self) -> tuple[str, str, Solver | None, float | None]:
        """What is equal in the rows of one model in all tables: name, arguments, solver, a fixed train horizon."""
        fixed = (cell.train_horizon for cell in self.cells.values() if cell.train_horizon != cell.horizon)
        return self.model, canonical_json(dict(self.arguments)), self.solver, next(fixed, None)

    @property
    def name(self) -> str:
        """The model with its arguments, without its solver."""
        return " ".join([self.model, *(f"{name}={value}" for name, value in self.arguments.items())])

    @property
    def label(self) -> str:
        """The model with all that tells the row apart."""
        return self.model + (f" ({', '.join(self.details)})" if self.details else "")

    @property
    def matched(self) -> tuple[Cell, ...]:
        """The ranked cells whose horizon is that of training."""
        return tuple(cell for cell in self.cells.values() if cell.ranked and cell.train_horizon == cell.horizon)

    @property
    def best(self) -> float | None:
        """The highest robust accuracy among the ranked cells, by which rows are ordered; null where none is ranked."""
        return max((cell.robust_accuracy.value for cell in self.cells.values() if cell.ranked), default=None)


@dataclass(frozen=True)
class Table:
    """All models at one epsilon. `name_is_shared` where several data sets have the name of this one."""

    dataset: str
    split: str
    dataset_sha256: str
    name_is_shared: bool
    norm: Norm
    epsilon: float
    rows: tuple[Row, ...]

    @property
    def horizons(self) -> tuple[float | None, ...]:
        """The columns: horizons rising, and null at the end where a model has none."""
        return tuple(in_order({horizon for row in self.rows for horizon in row.cells}))

    @property
    def usual(self) -> tuple[Row, ...]:
        """One row for each model and its arguments: that with the most ranked cells at the horizon of training, a fixed
        step before an adaptive solver. All rows of a model that has no such cell."""
        chosen = {row.name: row for row in sorted(self.rows, key=_weight)}
        return tuple(row for row in self.rows if row is chosen[row.name] or _weight(chosen[row.name])[0] == 0)

    @property
    def others(self) -> tuple[Row, ...]:
        """The rows that are not usual: other solvers, and horizons other than that of training."""
        usual = self.usual
        return tuple(row for row in self.rows if not any(row is one for one in usual))


def _weight(row: Row) -> tuple[int, bool]:
    return len(row.matched), row.solver is None or not row.solver.adaptive


def in_order(horizons: set[float | None]) -> list[float | None]:
    """Horizons rising, null last."""
    return sorted(horizons, key=lambda horizon: (horizon is None, horizon or 0.0))


def short_solver(solver: Solver) -> str:
    """A solver in as few words as distinguish it: "rk4 step 0.25", "dopri5 rtol 0.001"."""
    if not solver.adaptive:
        return f"{solver.method} step {solver.step:g}"
    atol = "" if solver.atol == solver.rtol else f" atol {solver.atol:g}"
    return f"{solver.method} rtol {solver.rtol:g}{atol}{' joint' if solver.couples_batch else ''}"
