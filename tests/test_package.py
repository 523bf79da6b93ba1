"""What is installed: a wheel with the package alone, that runs from any folder, in one version."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
import zipfile
from email import message_from_string
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import odebench
import odebench.__main__ as odebench_main

ROOT = Path(__file__).parents[1]


def in_project(table: str, key: str) -> str:
    """A text of pyproject.toml; tomllib is not in Python 3.10."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(rf"^\[{re.escape(table)}\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S)
    assert block is not None
    found = re.search(rf'^{re.escape(key)} = "([^"]*)"', block[1], re.M)
    assert found is not None
    return found[1]


def run(*command: str, cwd: Path, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLUMNS")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree, built offline."""
    folder = tmp_path_factory.mktemp("dist")
    code = (
        "import sys; from hatchling.build import build_wheel;"
        "sys.stdout = sys.stderr; name = build_wheel(sys.argv[1]); sys.__stdout__.write(name)"
    )
    return folder / run("-c", code, str(folder), cwd=ROOT)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and nothing else installed in it."""
    target = tmp_path_factory.mktemp("site")
    quiet = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--no-compile")
    run("-m", "pip", "install", *quiet, "--target", str(target), str(wheel), cwd=target.parent)
    return target


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    information = f"odebench-{odebench.__version__}.dist-info/"
    tree = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "odebench").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    tree |= {f"odebench/protocol/protocols/{path.name}" for path in (ROOT / "benchmarks" / "protocols").glob("*.yaml")}
    tree |= {"odebench/protocol/claims.yaml"}
    assert {name for name in names if not name.startswith(information)} == tree
    assert "odebench/py.typed" in names
    assert f"{information}licenses/LICENSE" in names
    assert not [name for name in names if "test" in name]
    assert len(names) == len(set(names))


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    assert wheel.name == f"odebench-{odebench.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        information = f"odebench-{odebench.__version__}.dist-info"
        metadata = message_from_string(archive.read(f"{information}/METADATA").decode())
        scripts = archive.read(f"{information}/entry_points.txt").decode().split("\n")
    assert (metadata["Name"], metadata["Version"]) == ("odebench", odebench.__version__)
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"
    needed = {re.split(r"[<>=; ]", requirement)[0] for requirement in metadata.get_all("Requires-Dist", [])}
    assert {"torch", "torchdiffeq", "torchode", "foolbox", "pydantic", "typer", "rich", "safetensors"} <= needed
    assert "odebench = odebench.__main__:run" in scripts


def test_what_is_installed_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    site = str(installed)
    where = run("-c", "import odebench; print(odebench.__file__)", cwd=tmp_path, PYTHONPATH=site).strip()
    assert Path(where) == installed / "odebench" / "__init__.py", "not the working tree"
    version = run("-c", "import odebench; print(odebench.__version__)", cwd=tmp_path, PYTHONPATH=site)
    assert version == f"{odebench.__version__}\n"
    assert run("-m", "odebench", "--version", cwd=tmp_path, PYTHONPATH=site) == f"odebench {odebench.__version__}\n"
    models = run("-m", "odebench", "models", cwd=tmp_path, PYTHONPATH=site)
    assert [line.split()[0] for line in models.splitlines() if not line.startswith(" ")][:4] == [
        *("name", "resnet", "ode", "kd-ode"),
    ]
    protocols = run("-m", "odebench", "protocols", cwd=tmp_path, PYTHONPATH=site)
    assert {path.stem for path in (ROOT / "benchmarks" / "protocols").glob("*.yaml")} <= set(protocols.split())
    assert (installed / "bin" / "odebench").exists()
    assert list(tmp_path.rglob("*")) == []


def test_there_is_one_version() -> None:
    version = odebench.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert in_project("project", "version") == version


def test_the_citation_and_the_change_log_name_this_version() -> None:
    citation, changes = ROOT / "CITATION.cff", ROOT / "CHANGELOG.md"
    if citation.exists():
        found = re.search(r'^version: *"?([^"\n]+)"?$', citation.read_text(encoding="utf-8"), re.M)
        assert found is not None, "CITATION.cff has no version"
        assert found[1] == odebench.__version__
    if changes.exists():
        versions = re.findall(r"^## *\[?v?(\d+\.\d+\.\d+)", changes.read_text(encoding="utf-8"), re.M)
        assert versions, "CHANGELOG.md has no version"
        assert versions[0] == odebench.__version__


def test_the_script_is_the_command_line() -> None:
    assert in_project("project.scripts", "odebench") == "odebench.__main__:run"
    points = [point for point in entry_points(group="console_scripts") if point.name == "odebench"]
    assert {point.value for point in points} <= {"odebench.__main__:run"}


def test_the_package_offers_what_it_lists_and_no_more() -> None:
    assert set(odebench.__all__) <= set(dir(odebench))
    for name in odebench.__all__:
        assert getattr(odebench, name) is not None
    with pytest.raises(AttributeError, match="module 'odebench' has no attribute 'nosuch'"):
        _ = odebench.nosuch


def test_an_interruption_while_importing_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    real = builtins.__import__

    def interrupted(name: str, *rest: Any, **more: Any) -> Any:
        if name == "odebench.cli":
            raise KeyboardInterrupt
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit, match="130"):
        odebench_main.run()
    assert capsys.readouterr().err == "odebench: interrupted\n"


def test_threads_that_wait_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("odebench.cli.main", lambda: seen.append(os.environ["OMP_WAIT_POLICY"]))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    odebench_main.run()
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    odebench_main.run()
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert seen == ["PASSIVE", "ACTIVE"]
