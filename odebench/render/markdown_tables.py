"""The leaderboard as GitHub-flavoured Markdown whose source reads as plain text, in 80 columns where possible."""

from __future__ import annotations

import re
import string
import textwrap
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

from odebench.io.text import WIDTH, fill, hanging
from odebench.leaderboard.figures import CARRY_OVER
from odebench.leaderboard.table import Cell, Row, Table, in_order
from odebench.protocol.spec import Evaluation, radius

LABEL_WIDTH = 16
TITLE = "# Leaderboard\n"
EMPTY = "No results yet. `odebench run --model kd-ode --attack pgd` makes one.\n"
LEGEND = (
    "95% intervals cover the sampling of images (and of train seeds); a stronger attack may lower these figures. "
    "Robust: correct under every attack named. NFE: mean evaluations of the vector field per image, clean / under "
    "attack. Unranked: without a worst-case result, randomised, or not examined. Not examined: no result holds the "
    "checks that look for masked gradients; odebench diagnose makes them."
)

OTHERS = (
    "Other solvers, and horizons other than the one trained at. Rows may have met different attacks, which are listed "
    "below."
)

_ACTIVE = re.compile(
    r"[\\`*<|~$]"  # code, emphasis, HTML, cells, strikethrough, formulas
    r"|\](?=[(\[:])|\[(?=\^|\d(?![\d.]*, -?\d))|!(?=\[)"  # links, notes, images; not intervals
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; not within a word
    r"|&(?=#?\w+;)|:(?=//)|(?<=www)\.|@(?=\w)"  # entities; addresses that would be links
    r"|(?<!\S)(?:[-+#>=]+|\d+[.)])(?=\s|$)"  # what would begin a list, title or quotation in a new line
)

Line = tuple[str, ...]
Link = Callable[[str, Path], str]
"""Writes a text as a link to a result file."""


def markdown(tables: Sequence[Table]) -> str:
    """All tables, each with its notes, and a legend. Intervals stand beside their figures, or below them in all tables
    if one would be wider than 80 columns."""
    if not tables:
        return f"{TITLE}\n{EMPTY}"
    return "\n".join([TITLE, *sections(tables), fill(f"{LEGEND} {CARRY_OVER}"), ""])


def sections(tables: Sequence[Table], *, level: int = 2, link: Link | None = None) -> list[str]:
    """Each table under a heading of this level, with its notes. `link` links a figure to its result file."""
    beside = [_grid(table, rows, stacked=False, link=None) for table in tables for rows in (table.usual, table.others)]
    stacked = any(len(line) > WIDTH for lines in beside for line in lines)
    parts = []
    for table in tables:
        lines = _grid(table, table.usual, stacked=stacked, link=link)
        if table.others:
            lines += ["", fill(OTHERS), "", *_grid(table, table.others, stacked=stacked, link=link)]
        parts.append("\n".join([f"{'#' * level} {_heading(table)}", "", *lines, "", *_notes(table), ""]))
    return parts


def item(text: str, *, lead: str = "") -> str:
    """An item of a list in lines of at most 80 columns; what leads it is bold."""
    return hanging(f"- {f'**{escape(lead)}** ' if lead else ''}{escape(text)}")


def _wrapped(text: str) -> list[str]:
    """The lines of a row's label; a setting too long for a line is broken after its equals sign or an underscore."""
    for mark in "=_":
        text = " ".join(word.replace(mark, f"{mark} ") if len(word) > LABEL_WIDTH else word for word in text.split(" "))
    return textwrap.wrap(text, LABEL_WIDTH)


def _heading(table: Table) -> str:
    images = _image_counts(table)
    count = f"{images[0]}" if len(images) == 1 else f"{images[0]} to {images[-1]}"
    digest = f", sha256 {table.dataset_sha256[:12]}" if table.name_is_shared else ""
    name = f"{table.dataset} ({table.split}{digest})"
    return escape(f"{name}: {table.norm}, epsilon {radius(table.epsilon)}, {count} images")


def _grid(table: Table, rows: Sequence[Row], *, stacked: bool, link: Link | None) -> list[str]:
    horizons = in_order({horizon for row in rows for horizon in row.cells})
    heading = ("model", "figure", *(horizon_name(horizon) for horizon in horizons))
    lines: list[Line] = []
    for row in rows:
        cells = [row.cells.get(horizon) for horizon in horizons]
        figures = _figure_lines(cells, _marks(table), stacked=stacked, link=link)
        blank = ("",) * (1 + len(cells))
        details = [*row.details, *([] if row.best is not None else ["unranked"])]
        labels = [row.model, *(part for text in details for part in _wrapped(text))]
        for label, figure in zip_longest(labels, figures):
            lines.append((escape(label or ""), *(figure or blank)))
    return grid(heading, lines, left=(0, 1))


def grid(heading: Line, lines: Sequence[Line], *, left: tuple[int, ...]) -> list[str]:
    """The lines of a table whose source reads as plain text; the columns in `left` are aligned left."""
    widths = [max(3, *(len(line[column]) for line in [heading, *lines])) for column in range(len(heading))]
    rule = tuple(
        f":{'-' * (width - 1)}" if column in left else f"{'-' * (width - 1)}:" for column, width in enumerate(widths)
    )
    return [_join(line, widths, left) for line in (heading, rule, *lines)]


def _figure_lines(
    cells: Sequence[Cell | None], marks: dict[str, str], *, stacked: bool, link: Link | None
) -> list[Line]:
    def linked(texts: list[str]) -> list[str]:
        """The texts with links to the first file of each cell; where there are several, the seeds link to each."""
        pairs = zip(texts, cells, strict=True)
        return [
            link(text, next(iter(cell.files.values()))) if link and text and cell and cell.files else text
            for text, cell in pairs
        ]

    lines: list[Line] = []
    for name, figures in (
        ("clean %", [cell.clean_accuracy if cell else None for cell in cells]),
        ("robust %", [cell.robust_accuracy if cell else None for cell in cells]),
    ):
        values = linked([f"{100 * figure.value:.1f}" if figure else "" for figure in figures])
        dash = "-" if stacked else ", "
        ends = [f"{100 * figure.low:.1f}{dash}{100 * figure.high:.1f}" if figure else "" for figure in figures]
        if stacked:
            lines += [(name, *values), ("95%", *ends)]
        else:
            lines.append((name, *(f"{v} [{e}]" if v else "" for v, e in zip(values, ends, strict=True))))
    if any(cell and cell.nfe_clean is not None for cell in cells):
        lines.append(("NFE", *linked([nfe_text(cell) for cell in cells])))
    if any(cell and cell.flags for cell in cells):
        flags = [cell.flags if cell else {} for cell in cells]
        lines.append(("flags", *(" ".join(marks[flag] for flag in found) for found in flags)))
    if link is not None and any(cell and len(cell.files) > 1 for cell in cells):
        files = [cell.files if cell else {} for cell in cells]
        lines.append(("seeds", *(" ".join(link(seed, path) for seed, path in found.items()) for found in files)))
    return lines


def _notes(table: Table) -> list[str]:
    """One item for all rows with the same seeds, attacks and rank, one for each credit and one for each flag."""
    several_n = len(_image_counts(table)) > 1
    rows_by_note: dict[str, list[str]] = {}
    for row in table.rows:
        horizons_by_note: dict[str, list[str]] = {}
        for horizon, cell in row.cells.items():
            horizons_by_note.setdefault(_note(cell, with_n=several_n), []).append(horizon_name(horizon))
        label = row.label
        for note, horizons in horizons_by_note.items():
            at = f" at {', '.join(horizons)}" if len(horizons_by_note) > 1 else ""
            rows_by_note.setdefault(note, []).append(label + at)
    notes = [f"{', '.join(labels)}: {note}" for note, labels in rows_by_note.items()]
    notes += [
        f"{row.label} at {horizon_name(horizon)}: {said}"
        for row in table.rows
        for horizon, cell in row.cells.items()
        for said in credit_texts(cell)
    ]
    meanings = {flag: why for cell in _cells(table) for flag, why in cell.flags.items()}
    notes += [f"[{mark}] {flag}: {meanings[flag]}" for flag, mark in _marks(table).items()]
    return [item(note) for note in notes]


def _note(cell: Cell, *, with_n: bool) -> str:
    attacks = attack_names(cell)
    return "; ".join(
        [
            f"{cell.seeds} seed{'s' if cell.seeds > 1 else ''}",
            *([f"{cell.n} images"] if with_n else []),
            f"union of {', '.join(attacks)}" if len(attacks) > 1 else f"{attacks[0]} alone",
            *([] if cell.ranked else ["unranked"]),
            *([] if cell.examined else ["not examined"]),
        ]
    )


def credit_texts(cell: Cell) -> list[str]:
    """A sentence for each author whose candidates, made elsewhere, succeeded on an image of the cell, or are not
    counted."""
    texts = []
    for credit in cell.credits:
        count = f"{credit.felled} of {cell.n * credit.seeds} images"
        seeds = f" ({credit.seeds} of {cell.seeds} seeds)" if cell.seeds > 1 else ""
        if credit.alone == credit.felled:
            texts.append(f"{count}{seeds} fell to candidates of {credit.name} alone")
        else:
            texts.append(f"{count}{seeds} fell to candidates of {credit.name}, {credit.alone} of them to nothing else")
    said = [text for text, credit in zip(texts, cell.credits, strict=True) if credit.felled]
    for name in cell.not_counted:
        said.append(f"candidates of {name} are not counted: their file has no address, so nobody can judge them again")
    return said


def attack_names(cell: Cell) -> list[str]:
    """The attacks of a union, with the number of train seeds and images where an attack was not run on all."""
    names = []
    for name, reach in cell.attacks.items():
        parts = [f"{reach.seeds} of {cell.seeds} seeds"] * (reach.seeds < cell.seeds)
        parts += [f"{reach.images} of {cell.n} images"] * (reach.images < cell.n)
        names.append(f"{name} ({', '.join(parts)})" if parts else name)
    return names


def _marks(table: Table) -> dict[str, str]:
    """The mark of each flag of the table: a, b and so on; after z the flag's own name."""
    flags = sorted({flag for cell in _cells(table) for flag in cell.flags})
    return {flag: mark or flag for flag, mark in zip_longest(flags, string.ascii_lowercase[: len(flags)])}


def nfe_text(cell: Cell | None) -> str:
    """Mean NFE, clean / under attack; empty for a model without a field."""
    if cell is None or cell.nfe_clean is None:
        return ""
    both = [value for value in (cell.nfe_clean, cell.nfe_adversarial) if value is not None]
    return " / ".join(f"{value:.0f}" if value == round(value) else f"{value:.1f}" for value in both)


def horizon_name(horizon: float | None) -> str:
    """A horizon as a column's name."""
    return "no horizon" if horizon is None else f"T={horizon:g}"


def horizon_of(evaluation: Evaluation) -> str:
    """The horizon of an evaluation, with that of training where it is another one."""
    name, trained = horizon_name(evaluation.horizon), evaluation.train_horizon
    return name if trained in (None, evaluation.horizon) else f"{name} (trained at T={trained:g})"


def _image_counts(table: Table) -> list[int]:
    return sorted({cell.n for cell in _cells(table)})


def _cells(table: Table) -> list[Cell]:
    return [cell for row in table.rows for cell in row.cells.values()]


def _join(line: Line, widths: Sequence[int], left: tuple[int, ...]) -> str:
    fields = [
        text.ljust(width) if column in left else text.rjust(width)
        for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
    return f"| {' | '.join(fields)} |"


def escape(text: str) -> str:
    """The text in one line of Markdown, with all markup escaped and a question mark for what is not printable."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return _ACTIVE.sub(lambda found: re.sub(r"(\W|_)", r"\\\1", found[0]), line)
