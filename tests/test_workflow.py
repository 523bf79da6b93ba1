"""What runs on pull requests: nothing of theirs judges them, and nothing secret is near them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from odebench.cli import app

GITHUB = Path(__file__).parents[1] / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.y*ml"))
ENTRY = GITHUB / "workflows" / "entry.yml"


def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    """What a workflow runs on; YAML 1.1 takes the key "on" for true."""
    found: dict[str, Any] = workflow[True]
    return found


def steps(workflow: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def test_there_are_three() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "entry.yml", "slow.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_secret_and_can_only_read(path: Path) -> None:
    workflow, text = read(path), path.read_text(encoding="utf-8")
    assert "pull_request_target" not in text
    assert "workflow_run" not in text
    assert "secrets." not in text.replace("no secrets", "")
    assert "token" not in re.sub(r"#.*", "", text)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert 0 < job["timeout-minutes"] <= 60


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.fullmatch(r"\s*(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    for step in steps(read(path)):
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_text_of_a_stranger_becomes_a_command(path: Path) -> None:
    for step in steps(read(path)):
        assert "${{" not in step.get("run", "")


def test_the_judge_comes_from_the_branch_that_the_pull_request_goes_to() -> None:
    workflow = read(ENTRY)
    assert triggers(workflow) == {"pull_request": {"paths": ["leaderboard/**"]}}
    (job,) = workflow["jobs"].values()
    taken = {
        step["with"]["path"]: step["with"].get("ref") for step in job["steps"] if "checkout" in step.get("uses", "")
    }
    assert taken == {"pull-request": None, "judge": "${{ github.event.pull_request.base.sha }}"}
    assert job["env"]["BASE"] == "${{ github.base_ref }}"
    assert job["env"]["PYTHONSAFEPATH"] == "1"
    installs = [step["run"] for step in job["steps"] if "pip install" in step.get("run", "")]
    assert installs == ['pip install "./judge[hf,page]"']


def test_the_command_that_it_runs_is_one() -> None:
    (run,) = (step for step in steps(read(ENTRY)) if step.get("run", "").startswith("odebench"))
    assert run["working-directory"] == "pull-request"
    _, name, *words = run["run"].replace('"', "").split()
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    options = command.make_context(name, words).params
    assert (options["base"], options["trust"], options["maintainer"]) == ("origin/$BASE", True, False)
    assert str(options["summary"]) == "$GITHUB_STEP_SUMMARY"


def test_published_files_are_compared_where_a_pull_request_changes_them_alone() -> None:
    """ci, which runs the tests of the pull request's own code, looks at every pull request."""
    *_, last = steps(read(ENTRY))
    assert "if" not in last
    assert last["working-directory"] == "pull-request"
    condition = 'git diff --quiet "origin/$BASE...HEAD" -- odebench benchmarks'
    assert condition in last["run"]
    (command,) = re.findall(r"then (odebench .*); fi", last["run"])
    _, name, *words = command.split()
    options = get_command(app).commands[name].make_context(name, words).params  # type: ignore[attr-defined]
    assert (options["check"], options["publish"]) == (True, False)
    assert triggers(read(GITHUB / "workflows" / "ci.yml"))["pull_request"] is None


@pytest.mark.parametrize(
    ("git", "check", "code", "checked"), [(0, 0, 0, 1), (0, 3, 3, 1), (1, 0, 0, 0), (128, 0, 1, 0)]
)
def test_an_error_of_git_is_no_reason_to_compare_nothing(
    tmp_path: Path, git: int, check: int, code: int, checked: int
) -> None:
    for name, status in (("git", git), ("odebench", check)):
        (tmp_path / name).write_text(f"#!/bin/sh\necho x >> {tmp_path}/{name}.ran\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    *_, last = steps(read(ENTRY))
    # as GitHub runs a step
    done = subprocess.run(
        ["bash", "-e", "-c", last["run"]],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "BASE": "main"},
        capture_output=True,
    )
    assert done.returncode == code
    assert (tmp_path / "odebench.ran").exists() == bool(checked)


def test_the_template_asks_for_the_rules() -> None:
    text = (GITHUB / "pull_request_template.md").read_text(encoding="utf-8")
    assert text.count("- [ ] ") >= 10
    for word in ("logits", "batch", "gradient", "safetensors", "licence", "randomised", "500", "check-pr"):
        assert word in text
