"""The plugin in examples is built, installed into a fresh environment and run, by the commands of docs/plugins.md."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from odebench.result.file import read_result, result_files

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
SOURCES = [path for path in PLUGIN.rglob("*") if path.suffix in (".py", ".toml", ".md")]
FROM = "odebench-antisymmetric 0.1.0"


def shown(language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found


@dataclass(frozen=True)
class Fresh:
    """A virtual environment that sees this one's packages and the checkout, and a folder to work in."""

    python: Path
    folder: Path

    def type(self, *words: str, code: int = 0) -> str:
        """What a command says, with pip and odebench of this environment. Builds and installs offline."""
        command = {
            "pip": [sys.executable, "-m", "pip", "--python", str(self.python)],
            "odebench": [str(self.python), "-m", "odebench"],
        }[words[0]]
        offline = ["--no-build-isolation", "--no-deps", "--no-index", "--no-compile", "--quiet"]
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [*command, *words[1:], *(offline if words[:2] == ("pip", "install") else [])],
            cwd=self.folder,
            env=kept | {"COLUMNS": "100", "ODEBENCH_CACHE": str(self.folder / "cache")},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    top = tmp_path_factory.mktemp("fresh")
    venv = [sys.executable, "-m", "venv", "--without-pip", str(top / "venv")]
    subprocess.run(venv, check=True, capture_output=True, timeout=120)
    folders = {name: str(top / "venv") for name in ("base", "platbase")}
    site = Path(sysconfig.get_path("purelib", "venv" if os.name != "nt" else "nt_venv", folders))
    (site / "this.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    skip = shutil.ignore_patterns("__pycache__")
    (top / "work" / "examples").mkdir(parents=True)
    shutil.copytree(PLUGIN, top / "work" / "examples" / "plugin", ignore=skip)
    return Fresh(top / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python", top / "work")


@pytest.fixture(scope="module")
def said(fresh: Fresh) -> list[str]:
    """What the commands of the page say, one after the other."""
    return [fresh.type(*shlex.split(line)) for line in shown("sh")[0].splitlines()]


def test_the_page_shows_what_the_plugin_says() -> None:
    texts = [path.read_text(encoding="utf-8") for path in SOURCES]
    for code in [*shown("toml"), *shown("py")]:
        assert any(code in text for text in texts), code


def test_the_plugin_is_listed_with_where_it_comes_from(said: list[str]) -> None:
    _, models, attacks, _ = said
    for listed, name in ((models, "antisymmetric-ode"), (attacks, "mi-fgsm")):
        (line,) = (line for line in listed.splitlines() if line.startswith(f"{name} "))
        assert line.rstrip().endswith(FROM)


def test_the_plugin_gives_a_result(said: list[str], fresh: Fresh) -> None:
    assert "antisymmetric-ode on digits (test), 100 images, mi-fgsm in linf" in said[-1]
    (path,) = result_files(fresh.folder / "results")
    result = read_result(path)
    evaluation = result.evaluation
    assert (evaluation.model.name, evaluation.attack.name) == ("antisymmetric-ode", "mi-fgsm")
    assert evaluation.attack.parameters == {"steps": 10, "decay": 1.0, "relative_step": 0.1}
    assert evaluation.solver is not None
    assert result.nfe.clean is not None
    assert result.nfe.clean.mean == 16, "the field is integrated by odebench: four steps of rk4"
    robust = [item.figures.robust_accuracy.value for item in result.epsilons]
    clean = result.epsilons[0].figures.clean_accuracy.value
    assert clean > 0.85
    assert clean - 0.02 > robust[0] > robust[1] > robust[2], "the attack does something, and more with more room"
    assert [item.figures.invalid for item in result.epsilons] == [0, 0, 0]
    assert result.cost.backward < 27, "images that have fallen are left alone: fewer than three times ten steps"
    assert result.flags == ()
    assert {check.status for check in result.checks} == {"pass"}


def test_the_plugin_needs_nothing_that_is_not_public() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"odebench\.(?!Solver|integrate|pursued|models|attacks)\w+", text), path


def test_a_plugin_that_was_taken_away_is_gone(fresh: Fresh, said: list[str]) -> None:
    fresh.type("pip", "uninstall", "--yes", "odebench-antisymmetric")
    words = ("run", "--model", "antisymmetric-ode", "--attack", "pgd")
    assert fresh.type("odebench", *words, code=2).startswith("odebench: unknown model 'antisymmetric-ode';")
