"""Broken protocols and command lines are one line each; what the script calls a fault is one."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import broken_inputs
from broken_inputs import Command, Ran, faults_of

from odebench.cli import _exit_code
from odebench.errors import OdebenchError
from odebench.sweep.protocol_cells import read_grid


def test_broken_protocols_are_refused_with_their_file(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(broken_inputs.PROTOCOL.format(*broken_inputs.CELL), encoding="utf-8")
    assert len(read_grid(str(good)).cells) == 1
    for path in broken_inputs.made(tmp_path):
        with pytest.raises(OdebenchError) as caught:
            read_grid(str(path))
        assert str(caught.value).startswith(f"{path}, line ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", broken_inputs.LINES)
def test_a_broken_command_line_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["odebench", *broken_inputs.LINES[name]])
    code = _exit_code()
    out, err = capsys.readouterr()
    assert (code in (1, 2), out) == (True, "")
    assert re.fullmatch(r"odebench: [^\n]{1,2100}\n", err), err
    assert err.strip().isprintable()
    assert "please report it" not in err
    assert list(tmp_path.glob("*.json")) == []


GOOD = Ran(1, "", "odebench: x.json is not a result\n", seconds=1.0, most=1000)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"code": 0}, "exit 0"),
        ({"err": "Traceback (most recent call last): x.json\n"}, "traceback"),
        ({"err": "odebench: one is not a result\n"}, "no line names the file"),
        ({"err": "x.json\nx.json\n"}, "2 lines on standard error"),
        ({"err": "x.json \x1b[31m\n"}, "characters that steer a terminal"),
        ({"seconds": 7.0}, "6.0 s"),
        ({"most": 2 << 30}, "2.00 GB"),
        ({"left": ["stray"]}, "left stray"),
    ],
)
def test_faults_are_seen(change: dict[str, object], fault: str | None) -> None:
    found = faults_of(replace(GOOD, **change), Command("show FILE"), "x.json", 1.0)  # type: ignore[arg-type]
    assert found == ([] if fault is None else [fault])


def test_good_files_must_be_shown() -> None:
    command = Command("leaderboard R", all_lines=True, shows=True)
    assert faults_of(GOOD, command, "x.json", 0.0) == ["good files are not shown"]
    assert faults_of(replace(GOOD, out=f"| {broken_inputs.GOOD_MODEL} |"), command, "x.json", 0.0) == []
