"""The leaderboard at a glance: one row a model, at the middle epsilon, robust accuracy with its half-width."""

from __future__ import annotations

from collections.abc import Sequence

from odebench.io.text import fill
from odebench.leaderboard.grouping import group
from odebench.leaderboard.rank import decided, ranks
from odebench.leaderboard.table import Cell, Row, Table
from odebench.protocol.spec import middle, radius
from odebench.render.markdown_tables import escape, grid, horizon_name, nfe_text

CAPTION = (
    "Robust accuracy ± half-width of its 95% interval / clean accuracy, in percent. Rank: 1 + the models that are "
    "significantly better in the mean over their horizons."
)


def middle_tables(tables: Sequence[Table]) -> list[Table]:
    """Of the tables of one data set the one at the middle epsilon of each norm, linf first."""
    found = [middle(same) for same in group(tables, lambda table: table.norm).values()]
    return sorted(found, key=lambda table: table.norm != "linf")


def first_tables(tables: Sequence[Table]) -> list[Table]:
    """For each data set its table at the middle epsilon of linf, else of its other norm."""
    return [middle_tables(same)[0] for same in group(tables, lambda table: table.dataset).values()]


def summary(table: Table) -> list[str]:
    """A row a model in the order of the table, a column a horizon; what speaks against a row stands last."""
    rows, rank = table.usual, ranks(table)
    horizons = [horizon for horizon in table.horizons if any(horizon in row.cells for row in rows)]
    heading = ("rank", "model", *map(horizon_name, horizons), "notes")
    lines = [
        (str(rank.get(at, "")), escape(row.model), *(_both(row.cells.get(each)) for each in horizons), _notes(row))
        for at, row in enumerate(rows)
    ]
    said = decided(table)
    return [*grid(heading, lines, left=(1, len(horizons) + 2)), *(["", fill(said)] if said else [])]


def at_one_horizon(table: Table, horizon: float) -> list[str]:
    """A row a model with a cell at the horizon, or without a horizon, by robust accuracy."""
    found = [(row, cell) for row in table.usual if (cell := row.cells.get(horizon) or row.cells.get(None)) is not None]
    found.sort(key=lambda pair: -pair[1].robust_accuracy.value)
    lines = [
        (escape(row.model), robust_text(cell), f"{100 * cell.clean_accuracy.value:.1f}", nfe_text(cell), *_extent(cell))
        for row, cell in found
    ]
    return grid(("model", "robust %", "clean %", "NFE", "images", "seeds"), lines, left=(0,))


def title(table: Table) -> str:
    """The norm, the epsilon and the number of images of a table, in a few words."""
    counts = sorted({cell.n for row in table.usual for cell in row.cells.values()})
    images = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{table.norm}, epsilon {radius(table.epsilon)}, {images} images"


def best_cell(row: Row) -> Cell:
    """The ranked cell of a ranked row with the highest robust accuracy."""
    return max((cell for cell in row.cells.values() if cell.ranked), key=lambda cell: cell.robust_accuracy.value)


def robust_text(cell: Cell) -> str:
    """Robust accuracy with the half-width of its interval, in percent, without the sign."""
    figure = cell.robust_accuracy
    return f"{100 * figure.value:.1f} ± {50 * (figure.high - figure.low):.1f}"


def _both(cell: Cell | None) -> str:
    return "" if cell is None else f"{robust_text(cell)} / {100 * cell.clean_accuracy.value:.1f}"


def _extent(cell: Cell) -> tuple[str, str]:
    return str(cell.n), str(cell.seeds)


def _notes(row: Row) -> str:
    """The train seeds where they are few, flags, and why a row is not ranked."""
    cells = list(row.cells.values())
    parts = [] if min(cell.seeds for cell in cells) > 1 else ["one seed"]
    parts += sorted({flag for cell in cells for flag in cell.flags})
    parts += ["not examined"] if any(not cell.examined for cell in cells) else []
    parts += ["unranked"] if row.best is None else []
    return ", ".join(map(escape, parts))
