"""A few hundred mutated files in every test run: no exception but ours, nothing slow, nothing written elsewhere."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odebench.io.yaml_document import DocumentError, parse_document
from odebench.submission.entry import ENTRY_PARTS, Entry
from odebench.submission.file_kind import foreign_kind

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_entries.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("fuzz_entries", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_entries"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fuzz_entries"]


@pytest.mark.parametrize("kind", ["entry", "code", "weights", "result"])
def test_mutated_files_get_a_plain_answer(script: ModuleType, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    tally = script.fuzz(
        script.published_samples, cases=150, seed=1, kinds=[kind], cpu_seconds=float("inf"), watch=False
    )
    assert tally.faults == []
    assert tally.cases[kind] == 150
    assert tally.refused[kind] > 50, "most of what is mutated is wrong"


def test_a_fault_would_be_found(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(script, "TIME_LIMIT_SECONDS", 0.05)
    faults = iter([lambda: [][1], lambda: time.sleep(0.2)])

    def faulty(kind: str, samples: object, generator: random.Random) -> bool:
        next(faults)()  # type: ignore[no-untyped-call]
        return True

    monkeypatch.setattr(script, "run_case", faulty)
    tally = script.fuzz(script.published_samples, cases=2, seed=1, kinds=["entry"], cpu_seconds=1e9, watch=False)
    assert "case 0 (entry): IndexError" in tally.faults[0]
    assert "case 1 (entry): TooSlowError" in tally.faults[1]


def test_what_a_case_must_not_do_would_be_seen(script: ModuleType, tmp_path: Path) -> None:
    watch = script.Watch(tmp_path)
    watch.on = True
    watch("open", (str(tmp_path / "a"), "w", 0))
    watch("open", ("/etc/passwd", "r", 0))
    assert watch.seen == []
    watch("open", ("/somewhere/else", "wb", 0))
    watch("open", ("/somewhere/other", None, os.O_RDWR))
    watch("os.system", (b"true",))
    watch("os.mkdir", ("/somewhere", 0o777, -1))
    watch("import", ("model", None, None, None, None))
    assert watch.seen == [
        "writes /somewhere/else",
        "writes /somewhere/other",
        "os.system",
        "os.mkdir /somewhere",
        "imports the model",
    ]


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_is_an_entry_or_an_error_of_ours(text: str) -> None:
    try:
        document = parse_document(text, "entry.yaml")
    except DocumentError:
        return
    if isinstance(document.value, dict):
        entry, errors = document.check(Entry, ENTRY_PARTS)
        assert (entry is None) == bool(errors)


@settings(max_examples=150, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=10))
def test_any_value_behind_any_key_is_refused_or_read(value: object) -> None:
    for key in Entry.model_fields:
        document = parse_document(f"{key}: 0\n", "entry.yaml")
        document.value[key] = value
        entry, errors = document.check(Entry, ENTRY_PARTS)
        assert entry is None
        assert all(error.line == 1 for error in errors)


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_any_bytes_can_be_asked_whether_they_are_a_pickle(data: bytes) -> None:
    assert foreign_kind(data) is None or isinstance(foreign_kind(data), str)
    assert foreign_kind(b"\x80\x04" + data) == "a pickle"
