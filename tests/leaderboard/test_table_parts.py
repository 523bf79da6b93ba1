"""Tables from the parts that are kept of results are those from whole results, in a tenth of the memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from odebench.leaderboard.build import build_tables
from odebench.leaderboard.read import read_results
from odebench.leaderboard.selection import Selection
from odebench.leaderboard.table_parts import TableParts
from odebench.render.breakdown import BREAKDOWNS, breakdown_markdown, tables_apart
from odebench.render.markdown_tables import markdown
from odebench.render.records import csv_text, json_text

PUBLISHED = [Path(__file__).parents[2] / "leaderboard" / "results" / name for name in ("kd-ode", "ode", "rslad-kd-ode")]


def test_tables_do_not_change() -> None:
    shown = []
    for stored, problems in (read_results(PUBLISHED), read_results(PUBLISHED, keep=TableParts().of)):
        tables, more = build_tables(stored)
        assert tables
        assert problems == more == []
        apart = [tables_apart(stored, Selection(), each) for each in BREAKDOWNS.values()]
        texts = [breakdown_markdown(stored, tables, Selection(), each) for each in BREAKDOWNS.values()]
        shown.append([markdown(tables), csv_text(tables), json_text(tables), *map(csv_text, apart), *texts])
    assert shown[0] == shown[1]


def test_parts_are_small_and_what_is_left_out_cannot_be_read() -> None:
    tracemalloc.start()
    stored, _ = read_results(PUBLISHED, keep=TableParts().of)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(stored) > 200
    assert kept / len(stored) < 10_000, "bytes per result; a whole one takes about 40,000"
    with pytest.raises(AttributeError):
        _ = stored[0].result.cost
    with pytest.raises(AttributeError):
        _ = stored[0].result.epsilons[0].figures
