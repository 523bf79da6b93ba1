"""The board of copies that benchmarks/speed/leaderboard_growth.py makes of published results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from odebench.leaderboard.build import build_tables
from odebench.leaderboard.read import read_results
from odebench.result.file import read_result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    import leaderboard_growth

    yield leaderboard_growth
    sys.modules.pop("leaderboard_growth", None)


def test_copies_are_results_of_other_models_seeds_and_data_sets(growth: ModuleType, tmp_path: Path) -> None:
    """Both versions of the schema: felled_by has one letter per image, or two."""
    paths = sorted((ROOT / "leaderboard" / "results" / "kd-ode").glob("digits-*.json"))
    by_version = {read_result(path).schema_version: read_result(path) for path in paths}
    assert set(by_version) == {1, 2}
    growth.write_results(tmp_path, list(by_version.values()), 0, 16)
    stored, problems = read_results([tmp_path])
    assert (len(stored), problems) == (16, [])
    assert len({item.result.outcomes_sha256 for item in stored}) == 16
    tables, contradictions = build_tables(stored)
    assert contradictions == []
    assert len({table.dataset for table in tables}) == 2
    assert len({row.name for table in tables for row in table.rows}) == growth.MODELS
