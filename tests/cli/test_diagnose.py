"""`odebench diagnose` as a user types it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from odebench.cli import _exit_code
from odebench.result.file import read_result
from odebench.result.schema import Result

QUICK = [1, 2, 3, 5, 8, 11, 14, 15, 16, 17, 18, 19, 20, 21]
FULL = [number for number in range(1, 22) if number != 13]
WORDS = "diagnose -m ode --set epochs=1 -n 40 --parameter steps=3"


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(tmp_path: Path, narrow: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command within this process, in an empty folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("COLUMNS", "FORCE_COLOR", "TERMINAL_WIDTH", "ODEBENCH_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def run(line: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["odebench", *shlex.split(line)])
        capsys.readouterr()
        code = _exit_code()
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
def trained(trained_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that the tests of this module share, so that the model is trained once."""
    monkeypatch.setenv("ODEBENCH_CACHE", str(trained_folder / "diagnose"))
    return trained_folder / "diagnose"


def only_result() -> Path:
    (path,) = Path("results").rglob("*.json")
    return path


def check_rows(out: str) -> dict[int, list[str]]:
    """The lines of the table of checks by number: status and what it speaks of."""
    found = {}
    for line in out.splitlines():
        row = re.match(r" ?(\d+) {2}(\S.*?) {2,}(pass|flag|skipped) {2}(.*?) *(model|settings) *$", line)
        if row:
            found[int(row[1])] = [row[2].strip(), row[3], row[5]]
    return found


def test_a_diagnosis_prints_every_check_in_80_columns(call: Call, trained: Path) -> None:
    said = call(WORDS)
    assert said.code == 0, said.err
    result = read_result(only_result())
    assert result.evaluation.attack.name == "quick-diagnosis"
    assert result.evaluation.threat_model.epsilons == (0.1,), "the middle of the grid"
    assert [check.id for check in result.checks] == QUICK
    heading, *rest = said.out.splitlines()
    assert heading == "ode on digits (test), 40 images, T=1, rk4 step 0.25"
    assert check_rows(said.out) == {check.id: [check.name, check.status, check.speaks_of] for check in result.checks}
    assert rest[-1] == f"result: {only_result()}"
    assert max(len(line) for line in said.out.splitlines()[:-1]) <= 80
    for title in ("loss against steps", "accuracy against epsilon", "adjoint's gradient against horizon", "NFE per im"):
        assert f"\n{title}" in said.out
    for check in result.checks:  # what to do is said of what flags or was not made, and of nothing else
        said_of = f"\n{check.id} {check.name}, "
        assert (said_of in said.out) == (check.status != "pass")
    assert "\x1b" not in said.out

    again = call(WORDS)
    assert (again.code, again.err) == (0, "")
    assert again.out.rstrip("\n") == said.out.rstrip("\n") + " (there already; --force runs it again)"
    assert Result.model_validate_json(call(f"{WORDS} --json").out) == result


def test_flags_and_what_to_do_are_said(call: Call, trained: Path) -> None:
    said = call(f"{WORDS} --parameter relative_step=0.1 --epsilon 0.05")
    assert said.code == 0, said.err
    assert check_rows(said.out)[14] == ["reach", "flag", "settings"]
    plain = " ".join(said.out.split())
    assert "14 reach, flag: steps x step in units of epsilon: below the threshold the attack cannot cross" in plain
    assert max(len(line) for line in said.out.splitlines()[:-1]) <= 80


def test_json_is_the_result_and_a_chart_is_drawn_beside_it(call: Call, trained: Path) -> None:
    words = WORDS.replace("-n 40", "-n 20")
    said = call(f"{words} --json --chart charts/ode.svg")
    assert said.code == 0, said.err
    assert Result.model_validate_json(said.out) == read_result(only_result())
    root = ElementTree.fromstring(Path("charts/ode.svg").read_text())
    drawn = " ".join(part.text or "" for part in root.iter())
    for title in ("ode on digits, quick-diagnosis", "loss against steps", "accuracy against epsilon", "NFE per image"):
        assert title in drawn
    # Of a result that is there already the chart is drawn from what it holds.
    again = call(f"{words} --chart again.svg")
    assert again.code == 0, again.err
    assert "chart: again.svg\n" in again.out
    assert Path("again.svg").read_text().count("<path") == Path("charts/ode.svg").read_text().count("<path")


def test_the_full_set_makes_every_check(call: Call, trained: Path) -> None:
    said = call(f"{WORDS} --full --source self:solver=euler:step=0.5 --epsilon 0.1,0.3 --solver euler --step 1")
    assert said.code == 0, said.err
    result = read_result(only_result())
    assert (result.evaluation.attack.name, [check.id for check in result.checks]) == ("diagnosis", FULL)
    assert result.evaluation.attack.sources == ("self:solver=euler:step=0.5",)
    rows = check_rows(said.out)
    assert sorted(rows) == FULL
    assert max(len(line) for line in said.out.splitlines()[:-1]) <= 80


def test_small_data_sets_are_diagnosed_whole(call: Call, trained: Path) -> None:
    """By default 200 images, or all that there are from the offset on."""
    said = call("diagnose -m ode --set epochs=1 --parameter steps=1 --offset 400 --epsilon 0.05 --json")
    assert said.code == 0, said.err
    assert (read_result(only_result()).evaluation.dataset.n, read_result(only_result()).evaluation.dataset.offset) == (
        100,
        400,
    )


WRONG = {
    "diagnose -m ode --chart curves.png": (2, r"a chart is an SVG picture: name a file that ends in \.svg, not curves"),
    "diagnose -m ode --chart .": (2, r"name a file that ends in \.svg, not \."),
    "diagnose -m ode --chart folder.svg": (2, r"cannot write folder\.svg: it is a folder; name a file"),
    "diagnose -m ode --chart file/curves.svg": (1, "cannot write in file: .*; name another folder"),
    "diagnose -m ode --source resnet": (2, "a source takes part in the transfer check, which is one of --full"),
    "diagnose -m kdode": (2, r"unknown model 'kdode'; did you mean 'kd-ode'\?"),
    "diagnose": (2, "Missing option '--model'"),
    "diagnose -m ode -d digit": (2, r"unknown data set 'digit'; did you mean 'digits'\?"),
    "diagnose -m ode --norm l1": (2, "attacks in linf and l2, not in l1"),
    "diagnose -m ode --epsilon 8": (2, "epsilon 8 is above 1"),
    "diagnose -m ode -n 101": (2, "101 images from 0 on are not whole chunks of 100"),
    "diagnose -m ode --offset 30": (2, "no chunk begins at offset 30"),
    "diagnose -m ode --offset 500": (2, "no chunk begins at offset 500"),
    "diagnose -m ode --parameter searches=3": (2, "quick-diagnosis has no parameter searches"),
    "diagnose -m ode --parameter steps=0": (2, "steps must be a whole number of at least 1"),
    "diagnose -m resnet --horizon 2": (2, "resnet integrates nothing"),
    "diagnose -m ode --full --source ode:sed=1": (2, "unknown sed"),
    "diagnose -m ode --split train": (2, "--split is test or validation, not 'train'"),
    "diagnose -m ode --device tpu": (2, "no device 'tpu'"),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_is_one_line_and_nothing_is_trained(
    line: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("odebench.evaluation.loading.find_or_train", refuse)
    Path("folder.svg").mkdir()
    Path("file").write_text("in the way")
    said = call(line)
    code, message = WRONG[line]
    assert (said.code, said.out) == (code, ""), said.err
    assert said.err.count("\n") == 1, said.err
    assert re.search(rf"^odebench: .*{message}", said.err), said.err
    assert "please report it" not in said.err
    assert sorted(path.name for path in Path().rglob("*")) == ["file", "folder.svg"]
