"""The leaderboard for programs: one record per cell, as CSV or JSON. see data_schema."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from odebench.io.canonical_json import canonical_json
from odebench.leaderboard.rank import ranks
from odebench.leaderboard.table import Cell, Row, Table
from odebench.render.data_schema import PROPERTIES, SCHEMA_VERSION
from odebench.result.schema import figure_columns

FIELDS = tuple(PROPERTIES)
DIGITS = 6
"""Decimals of an accuracy: more would differ from one version of scipy to the next."""


def csv_text(tables: Sequence[Table]) -> str:
    """The records as CSV with a heading: empty for null, lists separated by spaces, arguments and credits as JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for record in records(tables):
        writer.writerow({name: _plain(value) for name, value in record.items()})
    return text.getvalue()


def json_text(tables: Sequence[Table]) -> str:
    """The records as a JSON list of objects, with a new line at the end."""
    return json.dumps(records(tables), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def data_file(tables: Sequence[Table]) -> str:
    """The records as a JSON object with the version of their schema, one record a line."""
    lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records(tables)]
    joined = ",\n".join(lines)
    return f'{{"schema_version": {SCHEMA_VERSION}, "figures": [\n{joined}\n]}}\n'


def records(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """One record per cell, in the order of the tables, with the keys of FIELDS."""
    return [
        record_of(table, row, cell, rank)
        for table in tables
        for row, rank in with_ranks(table)
        for cell in row.cells.values()
    ]


def with_ranks(table: Table) -> list[tuple[Row, int | None]]:
    """The rows of a table, each with its rank, null where it has none."""
    usual, rank = table.usual, ranks(table)
    places = {id(row): rank.get(number) for number, row in enumerate(usual)}
    return [(row, places.get(id(row))) for row in table.rows]


def record_of(table: Table, row: Row, cell: Cell, rank: int | None) -> dict[str, Any]:
    """The record of one cell, whose row has this rank."""
    shares = figure_columns(cell, "clean_accuracy", "robust_accuracy")
    found = {
        "arguments": dict(row.arguments),
        "solver": None if row.solver is None else str(row.solver),
        "rank": rank if cell.ranked else None,
        "attacks": list(cell.attacks),
        **{name: round(share, DIGITS) for name, share in shares.items()},
        "flags": list(cell.flags),
        "credits": [asdict(credit) for credit in cell.credits],
    }
    plain = vars(table) | vars(row) | vars(cell) | found
    return {name: plain[name] for name in FIELDS}


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " ".join(part if isinstance(part, str) else canonical_json(part) for part in value)
    return canonical_json(value) if isinstance(value, dict) else value
