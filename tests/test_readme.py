"""What the README and the pages of docs show is what the project does: table, Python, commands."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from odebench.analysis.claims import claims_of
from odebench.cli import app
from odebench.cli.leaderboard import asked_claims
from odebench.leaderboard.read import read_results
from odebench.result.file import read_result, result_files

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLISHED = ROOT / "leaderboard" / "results"


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    return [code for page in pages for code in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)]


def test_the_tables_are_what_the_published_results_say() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    made = written["tables"]()
    lines = {name: len(table.splitlines()) for name, table in made.items()}
    assert lines == {"verdict": 7, "claims": 6, "map": 18, "table": 12}
    for page in written["PAGES"]:
        text = page.read_text(encoding="utf-8")
        assert text == written["filled"](text, made), f"{page.name} is stale: python docs/tables.py"
        assert made["claims"] in text
    assert made["map"] in (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert made["table"] in README
    assert made["verdict"] in README


def test_every_published_result_is_whole_and_where_its_name_says() -> None:
    files = list(result_files(PUBLISHED))
    assert files
    for path in files:
        result = read_result(path)
        assert path.parent.name == result.evaluation.model.name
        assert result.run_key[:16] in path.name


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split("\n")[0])
def test_python_runs_as_written(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip()


def test_the_first_screen_holds_two_commands() -> None:
    first = "\n".join(README.split("\n")[:60])
    commands = [line for line in first.split("\n") if line.startswith("pip install")]
    assert commands == [
        "pip install . && odebench run --model kd-ode --attack pgd",
        "pip install '.[test]' && pytest",
    ]


def test_every_command_of_the_readme_exists() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:`|^    )odebench ([a-z][a-z-]*)", text, re.MULTILINE)) | {"attacks", "datasets"}
    assert {"diagnose", "judge", "leaderboard"} <= named
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert named <= known


def test_no_result_is_older_than_the_claim_that_registered_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stored, _ = read_results([PUBLISHED, ROOT / "leaderboard" / "study"])
    claims = claims_of(asked_claims(), stored)
    assert not [claim.why for claim in claims if claim.why.startswith("registered ")]
