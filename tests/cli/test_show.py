"""`odebench show`: what a result says, and the command that makes the same evaluation again."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from result_factory import EXAMINED, counted_check, make_result
from small_model import linear

from odebench.cli import _exit_code
from odebench.cli.evaluation import Evaluated, Evaluator
from odebench.dataset.builtin import DIGITS
from odebench.dataset.registry import DATASETS
from odebench.errors import UsageError
from odebench.evaluation.evaluate import module_digest
from odebench.evaluation.plan import EvaluationRequest, Slice, plan
from odebench.leaderboard.model_card import AGAIN
from odebench.protocol.spec import adaptive, fixed_step
from odebench.result.file import read_result, result_files, write_result
from odebench.result.schema import Cost, Result, StageCost
from odebench.submission.own_model import CODE
from odebench.submission.run_command import FILE, joined, run_command

PUBLISHED = Path(__file__).parents[2] / "leaderboard"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", *map(str, words)])
        code = _exit_code()
        return (code, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    return call


@dataclass
class Planned:
    """The run key of what a command line asks for."""

    run_key: str = ""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Planned:
    """What a command would run; nothing is loaded."""
    found = Planned()

    def run(self: Evaluator, request: EvaluationRequest, described: Any, **options: Any) -> Evaluated:
        n = min(options.get("default_n", 500), described.sizes[request.images.split])
        images = request.images if request.images.n else Slice(n=n)
        one = plan(
            EvaluationRequest(**{**vars(request), "images": images}),
            described,
            total=described.sizes[images.split],
        )
        found.run_key = one.evaluation.run_key
        return Evaluated(make_result({0.1: "r"}), Path("none"), True)

    monkeypatch.setattr(Evaluator, "run", run)
    monkeypatch.setattr(Evaluated, "show", lambda *_, **__: None)
    return found


def stored(request: EvaluationRequest) -> Result:
    """A result of a request, as far as its command depends on it."""
    return make_result({0.1: "r"}).model_copy(update={"evaluation": plan(request, DIGITS, total=500).evaluation})


REQUESTS = {
    "default": EvaluationRequest("kd-ode", "pgd"),
    "images": EvaluationRequest("ode", "fgsm", images=Slice(n=40, offset=20, chunk=20)),
    "short last chunk": EvaluationRequest("resnet", "fgsm", images=Slice(n=30, offset=470, chunk=10)),
    "seeds and horizons": EvaluationRequest(
        "ode", "noise", horizon=2.0, train_horizon=1 / 3, train_seed=4, attack_seed=7, parameters={"draws": 3}
    ),
    "radii": EvaluationRequest("resnet", "pgd", norm="l2", epsilons=(8 / 255, 0.1234567891, 1.0)),
    "fixed solver": EvaluationRequest("ode", "cw", solver=fixed_step("euler", step=1 / 3)),
    "adaptive solver": EvaluationRequest("ode", "pgd", solver=adaptive("dopri5", rtol=1e-4, max_steps=77)),
    "joint solver": EvaluationRequest("ode", "pgd", solver=adaptive("bosh3", rtol=1e-2, backend="torchdiffeq")),
    "parameters": EvaluationRequest("ode", "pgd", parameters={"steps": 7, "random_start": False}),
    "step": EvaluationRequest("ode", "pgd", parameters={"relative_step": 0.3}),
    "effort": EvaluationRequest("kd-ode", "worst-case", parameters={"effort": "standard"}, sources=("ode:seed=1",)),
    "changes": EvaluationRequest("kd-ode", "fgsm", changes={"epochs": 3, "temperature": 2.5, "adversary": "trades"}),
    "surrogate": EvaluationRequest("ode", "pgd", surrogate=fixed_step("rk4", step=0.5), precision="bf16"),
    "diagnosis": EvaluationRequest("ode", "diagnosis", images=Slice(n=200), sources=("resnet", "self:solver=euler")),
    "quick diagnosis": EvaluationRequest("ode", "quick-diagnosis", images=Slice(n=100), epsilons=(0.05,)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_command_asks_for_the_same_evaluation(name: str, call: Call, planned: Planned) -> None:
    result = stored(REQUESTS[name])
    words = run_command(result)
    code, _, err = call(*words[1:])
    assert code == 0, (words, err)
    assert planned.run_key == result.evaluation.run_key, words


def test_so_do_the_commands_of_published_results(call: Call, planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(PUBLISHED))
    results = [read_result(path) for path in sorted(result_files(PUBLISHED / "results"))[::9]]
    results = [result for result in results if result.evaluation.dataset.name in DATASETS.entries()]
    assert len({result.evaluation.model.name for result in results}) > 5
    for result in results:
        words = run_command(result)
        code, _, err = call(*words[1:])
        assert code == 0, (words, err)
        assert planned.run_key == result.run_key, words


def test_commands_joined_make_the_same_results(call: Call, planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(PUBLISHED))
    made: list[str] = []

    def run_grid(grids: Any, **_: Any) -> None:
        made.extend(cell.run_key for _, grid in grids for cell in grid.cells)

    monkeypatch.setattr("odebench.cli.run_grid.run_grid", run_grid)
    for model in ("kd-ode", "resnet", "rslad-kd-ode"):
        results = [read_result(path) for path in sorted(result_files(PUBLISHED / "results" / model))]
        at = {None, 1.0} if model == "kd-ode" else {result.evaluation.horizon for result in results}
        some = [one for one in results if one.evaluation.dataset.name == "digits" and one.evaluation.horizon in at]
        commands = joined([run_command(result) for result in some])
        assert len(commands) < 0.7 * len(some)
        made.clear()
        for words in commands:
            planned.run_key = ""
            code, _, err = call(*words[1:])
            assert code == 0, (words, err)
            made += [planned.run_key] if planned.run_key else []
        assert sorted(made) == sorted(result.run_key for result in some)
    given = [*run_command(stored(REQUESTS["default"])), "--weights", FILE]
    assert joined([given, [*given[:4], "--seed", "1", *given[4:]]]) == [given, [*given[:4], "--seed", "1", *given[4:]]]


def test_weights_of_a_file_are_named_as_what_the_user_must_find(call: Call, planned: Planned, tmp_path: Path) -> None:
    result = stored(EvaluationRequest("ode", "fgsm"))
    model = result.evaluation.model.model_copy(update={"weights": result.found.weights_sha256})
    words = run_command(result.model_copy(update={"evaluation": result.evaluation.model_copy(update={"model": model})}))
    assert words[-2:] == ["--weights", FILE]


def test_where_no_command_makes_it_again_it_says_why() -> None:
    handed_over = make_result({0.1: "r"}, model=f"mine-{module_digest(linear(2))[:6]}")
    with pytest.raises(UsageError, match="unknown model"):
        run_command(handed_over)
    with pytest.raises(UsageError, match="its candidates were made elsewhere: odebench judge -m kd-ode FILE"):
        run_command(make_result({0.1: "r"}, model="kd-ode", attack="candidates"))


def test_a_result_is_explained(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    letters = {0.1: "rrrrffxmmu", 0.2: "rrffrrxmmu"}
    check = counted_check(k=9, n=10, why="images that move; take shorter steps")
    flagged = make_result(letters, model="kd-ode", checks=[check], flags=["solver gap"])
    mine = write_result(flagged, tmp_path / "results")
    board = tmp_path / "leaderboard"
    other = make_result({0.1: "rrrfffxmmu", 0.2: "rrffrrxmmu"}, model="kd-ode")
    published = write_result(other, board / "results")
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(board))
    code, out, err = call("show", mine)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "kd-ode on digits (test), 10 images, pgd in linf"
    counts = [
        line.split() for line in lines[lines.index("letters, one per image, in the order of the file:") + 1 :][:3]
    ]
    assert counts == [
        ["epsilon", "r", "f", "x", "m", "u"],
        ["0.1", "4", "2", "1", "2", "1"],
        ["0.2", "4", "2", "1", "2", "1"],
    ]
    shown = [line.split() for line in lines if re.match(r" *0\.\d .*%|^ *0\.\d +\d+\.\d \[", line)]
    assert [row[4] for row in shown] == ["40.0", "20.0"], "after carry-over"
    assert re.search(
        r"the table also counts as fooled \d of r at [\d.]+, which fell at a smaller epsilon", " ".join(out.split())
    )
    assert "f: fooled, misclassified at an adversarial image within epsilon" in lines
    assert "flag 16, solver gap: 9 of 10 images; images that move; take shorter steps" in lines
    assert any(line.startswith("odebench run --model kd-ode --attack pgd ") for line in lines)
    assert f"the command that repeats it ({AGAIN}):" in " ".join(out.split())
    words = " ".join(out.split())
    assert f"published, the same evaluation: {published}; 1 of 20 letters differ" in words
    assert "published at 0.1: clean 70.0%, robust 30.0% under pgd (10 images," in words
    assert [line for line in lines if len(line) > 80 and str(published) not in line] == []


def test_doubt_stages_and_what_no_command_repeats_are_said(call: Call, tmp_path: Path) -> None:
    result = make_result({0.1: "rf"}, model=f"mine-{module_digest(linear(2))[:6]}")
    stages = [StageCost(name=name, forward=21, backward=20, seconds=1.5) for name in ("pgd 20", "pgd 50")]
    cost = Cost(forward=42, backward=40, seconds=3.0, stages=tuple(stages))
    doubted = result.model_copy(update={"doubt": ("check 17, gradient fidelity, flags",), "cost": cost})
    code, out, err = call("show", write_result(doubted, tmp_path / "results"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "doubt: check 17, gradient fidelity, flags" in lines
    rows = [line.split() for line in lines]
    assert rows[rows.index(["stage", "forward", "backward", "seconds"]) + 1] == ["pgd", "20", "21", "20", "1.5"]
    assert "no command repeats it: unknown model 'mine-" in out


def test_checks_and_the_horizon_of_training_are_said(call: Call, tmp_path: Path) -> None:
    gap = counted_check(k=9, n=10, why="images that move; take shorter steps")
    checks = sorted([gap, *EXAMINED], key=lambda check: check.id)
    result = make_result({0.1: "rrrrffxmmu"}, checks=checks, flags=["solver gap"], horizon=0.5, train_horizon=1.0)
    _, out, _ = call("show", write_result(result, tmp_path / "results"))
    assert "T=0.5 (trained at T=1), rk4 step 0.25," in out
    rows = [line.split() for line in out.splitlines()]
    assert ["16", "solver", "gap", "flag", "9", "of", "10", "images", "model"] in rows
    assert sum(row[:1] == [str(check.id)] and check.status in row for check in checks for row in rows) == len(checks)
    same = make_result({0.1: "rf"}, horizon=0.5, train_horizon=0.5)
    assert "T=0.5, rk4" in call("show", write_result(same, tmp_path / "results"))[1]


def test_the_command_of_ones_own_model_names_its_file_and_weights() -> None:
    result = make_result({0.1: "rf"}, model="Net", arguments={CODE: "0123456789ab"}, train_seed=None)
    words = run_command(result)
    assert words[:4] == ["odebench", "run", "--model", "FILE.py:Net"]
    assert words[-3:] == ["--weights", "FILE", "--trust"]


def test_show_says_what_stands_for_files(call: Call, tmp_path: Path) -> None:
    result = make_result({0.1: "rf"}, model="Net", arguments={CODE: "0123456789ab"}, train_seed=None)
    _, out, _ = call("show", write_result(result, tmp_path / "results"))
    assert "FILE is the weights file of the sha256 above; FILE.py is the file of the class\n" in out


def test_how_often_each_stage_succeeded_is_said(call: Call) -> None:
    stages = sorted((PUBLISHED / "results" / "kd-ode").glob("digits-worst-case-l2-*.json"))[0]
    result = read_result(stages)
    code, out, _ = call("show", stages)
    whole = out.replace("\n  ", " ")  # lines of at most 80 columns are continued so
    lines = [line for line in whole.splitlines() if line.startswith("first to succeed at ")]
    assert (code, len(lines)) == (0, len(result.epsilons))
    for line, item in zip(lines, result.epsilons, strict=True):
        assert line.startswith(f"first to succeed at {item.epsilon:g}, in images: pgd 20: ")
        counts = [int(count) for count in re.findall(r": (\d+)(?=,|$)", line)]
        assert counts == sorted(counts, reverse=True)
        assert sum(counts) == item.outcomes.count("f") + item.outcomes.count("x")
    alone = next((PUBLISHED / "results" / "kd-ode").glob("digits-pgd-*.json"))
    assert "first to succeed" not in call("show", alone)[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("results", r"results is a folder; name one file, such as results/.*\.json"),
        ("none.json", "none.json"),
        ("half.json", "half.json is not whole JSON"),
    ],
)
def test_what_is_no_result_is_a_line(name: str, message: str, call: Call, tmp_path: Path) -> None:
    write_result(make_result({0.1: "r"}), tmp_path / "results")
    (tmp_path / "half.json").write_text("{", encoding="utf-8")
    code, out, err = call("show", name)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.search(message, err)
