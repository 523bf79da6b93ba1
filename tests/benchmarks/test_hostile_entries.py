"""The hostile entries are many, of their own kind each, and Python; the readers' fuzz finds nothing in a few cases."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fuzz_readers
import hostile_entries

from odebench.submission.entry import looks_like


def test_there_are_at_least_ten_kinds_of_three() -> None:
    made = hostile_entries.entries()
    assert len({one.code for one in made}) == len(made)
    kinds = Counter(one.kind for one in made)
    assert len(kinds) >= 10
    assert set(kinds.values()) == {3}
    for one in made:
        if one.rule != "code":
            compile(ast.parse(one.code), "model.py", "exec")


def test_their_names_look_alike_to_nobody() -> None:
    letters = hostile_entries.LETTERS
    names = [f"hostile-{first}{second}" for first in letters for second in letters]
    assert len(names) >= len(hostile_entries.entries())
    assert [name for name in names if looks_like(name, names) is not None] == []


def test_a_few_cases_of_every_reader(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "--cases", "40", "--only", "result,protocol,candidate,archive"])
    here = Path.cwd()
    fuzz_readers.main()
    assert Path.cwd() == here
    said = capsys.readouterr().out
    assert "40 cases" in said
    faults = said.partition(" faults\n")[2].splitlines()
    assert [line for line in faults if "GB" not in line] == [], "memory is that of all tests here"
    assert "result: pass the schema" in said
