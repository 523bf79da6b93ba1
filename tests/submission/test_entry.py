"""Entries: what they say, claims against results, and the folders that new-entry writes."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from entry_factory import change_entry, write_entry
from result_factory import make_result
from safetensors.torch import save_file
from torch import nn

from odebench.attack.definition import load_attack
from odebench.cli import _exit_code
from odebench.errors import UsageError
from odebench.io.files import sha256_file
from odebench.io.yaml_document import DocumentError
from odebench.protocol.spec import fixed_step
from odebench.result.schema import Result
from odebench.submission.claims import contradictions, is_about
from odebench.submission.entry import (
    ACCEPTED,
    ClaimedFigure,
    Entry,
    Use,
    Weights,
    read_entry,
)
from odebench.submission.new_entry import new_entry
from odebench.submission.validate import validate_entry

ROOT = Path(__file__).parents[2]

# --- reading -----------------------------------------------------------------------------------------------------


def test_an_entry_is_read_with_all_that_it_says(tmp_path: Path) -> None:
    own = "parameters: 80, solver: {method: euler, backend: torchdiffeq, step: 0.5}, arguments: {depth: 2}"
    entry = read_entry(write_entry(tmp_path, ("parameters: 80", own), ("epsilon: 0.1", "epsilon: 8/255")))
    (use,) = entry.datasets
    assert (entry.contributed, use.horizons) == (("model", "Net"), (1.0, 2.0))
    assert entry.solver == fixed_step(step=0.25)
    assert entry.solver_for(use) == fixed_step("euler", step=0.5), "a data set may have its own"
    assert entry.arguments_for(use) == {"channels": 4, "depth": 2}
    assert entry.training_for(use) == {"loss": "cross-entropy", "epochs": 15, "learning_rate": 0.01}
    assert entry.claims[0].epsilon == 8 / 255
    assert [(each.horizon, each.file, each.url is None) for each in entry.weights] == [
        (1.0, "one.safetensors", True),
        (2.0, None, False),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "line 1: an entry is a list of keys and values: id, model"),
        ("id: mine\n", "line 1: has no 'model'; add it"),
        ("", "it is empty"),
    ],
)
def test_what_is_no_entry_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "entry.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DocumentError, match=message):
        read_entry(tmp_path)


# --- claims ------------------------------------------------------------------------------------------------------


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return read_entry(write_entry(tmp_path))


def found(letters: str = "r" * 175 + "f" * 310 + "m" * 15, **changes: object) -> Result:
    """A result that the claim of the entry speaks of, unless something is changed."""
    result = make_result({0.05: letters, 0.1: letters}, model="mine", **changes)  # type: ignore[arg-type]
    attack = result.evaluation.attack.model_copy(update={"parameters": load_attack("pgd").complete()})
    return result.model_copy(update={"evaluation": result.evaluation.model_copy(update={"attack": attack})})


def test_a_claim_speaks_of_one_evaluation(entry: Entry) -> None:
    (claim,) = entry.claims
    assert is_about(claim, entry, found().evaluation)
    for other in (
        found(train_seed=1),
        found(horizon=2.0),
        found(train_horizon=2.0),
        found(solver=fixed_step(step=0.5)),
        found(dataset="mnist"),
        found(split="validation"),
        found(offset=100),
        found(norm="l2"),
        found("r" * 100),
        make_result({0.1: "r" * 500}, model="mine"),
        make_result({0.1: "r" * 500}, model="yours"),
    ):
        assert not is_about(claim, entry, other.evaluation)
    with_steps = claim.model_copy(update={"parameters": {"steps": 40}})
    assert not is_about(with_steps, entry, found().evaluation)
    assert not is_about(claim.model_copy(update={"epsilon": 0.2}), entry, found().evaluation)
    with pytest.raises(UsageError, match="pgd has no parameter stpes"):
        is_about(claim.model_copy(update={"parameters": {"stpes": 40}}), entry, found().evaluation)


@pytest.mark.parametrize(
    ("clean", "robust", "wrong"),
    [(0.97, 0.35, []), (None, 0.35, []), (0.97, 0.45, ["robust"]), (0.9, 0.2, ["clean", "robust"])],
)
def test_a_claim_outside_the_interval_is_a_contradiction(
    entry: Entry, clean: float | None, robust: float, wrong: list[str]
) -> None:
    claim: ClaimedFigure = entry.claims[0].model_copy(update={"clean_accuracy": clean, "robust_accuracy": robust})
    said = contradictions(claim, found())
    assert [line.split("_")[0] for line in said] == wrong
    if wrong:
        assert f"is claimed to be {robust:g}, pgd at 0.1 found 0.35 [0.309, 0.393]" in said[-1]


# --- a new entry -------------------------------------------------------------------------------------------------


def fill_in(mine: Path) -> None:
    """What validate says to write, instead of what new-entry has written."""
    placeholders = {"bytes": "bytes: 1", "parameters": "parameters: 1", "sha256": f'sha256: "{"0" * 64}"'}
    for each in validate_entry(mine).findings:
        key, value = each.message.split("; write ")[1].split(", or")[0].split(": ")
        change_entry(mine, (placeholders[key], f"{key}: {value}"))


def describe(mine: Path) -> None:
    (mine / "README.md").write_text("# my-ode\n\nA field of two layers.\n", encoding="utf-8")


def test_a_new_entry_names_what_is_left_to_fill_in_and_is_good_then(tmp_path: Path) -> None:
    new_entry("my-ode", tmp_path)
    mine = tmp_path / "my-ode"
    assert {path.name for path in mine.iterdir()} == {"entry.yaml", "README.md", "model.py", "train.py"}
    change_entry(mine, ("authors: []", "authors: [Ada]"), ('licence: ""', "licence: MIT"))
    text, only = validate_entry(mine).findings
    assert (Path(text.file).name, text.line) == ("README.md", None)
    assert "holds the template's text" in text.message
    assert "digits-t1-seed0.safetensors is not there" in only.message
    describe(mine)

    spec = importlib.util.spec_from_file_location("the_model", mine / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    entry = read_entry(mine)
    net: nn.Module = module.Net(
        image_shape=(1, 8, 8), n_classes=10, **entry.arguments, horizon=1.0, solver=entry.solver
    )
    save_file(net.state_dict(), mine / "digits-t1-seed0.safetensors")
    fill_in(mine)
    assert validate_entry(mine).findings == ()

    from odebench.model.classifier import Classifier

    answer = Classifier(net, n_classes=10).answer(torch.rand(2, 1, 8, 8))
    assert answer.logits.shape == (2, 10)
    assert answer.nfe is not None
    assert answer.nfe.tolist() == [16, 16]


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["odebench", *words])
    return _exit_code()


def test_the_command_writes_below_leaderboard_and_never_over_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, "new-entry", "my-ode") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"leaderboard/entries/my-ode/{name}" for name in ("entry.yaml", "README.md", "model.py", "train.py")
    ]
    (tmp_path / "leaderboard/entries/my-ode/entry.yaml").write_text("mine", encoding="utf-8")
    assert typed(monkeypatch, "new-entry", "my-ode") == 2
    assert "is there already; choose another id, or edit" in capsys.readouterr().err
    assert (tmp_path / "leaderboard/entries/my-ode/entry.yaml").read_text(encoding="utf-8") == "mine"
    assert typed(monkeypatch, "new-entry", "my-ode", "--to", "elsewhere") == 0
    assert (tmp_path / "elsewhere/my-ode/model.py").exists()


def test_the_page_leads_to_a_good_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    page = (ROOT / "docs" / "entries.md").read_text(encoding="utf-8")
    new, check, *_ = re.findall(r"^    odebench (.*)$", page, re.MULTILINE)
    (script,) = re.findall(r"^    python (.*)$", page, re.MULTILINE)[:1]
    mine = tmp_path / "leaderboard" / "entries" / "my-ode"
    assert typed(monkeypatch, *new.split()) == 0
    code = Path(script).read_text(encoding="utf-8")
    assert code.count("0, 15\n") == 1
    Path(script).write_text(code.replace("0, 15\n", "0, 2\n"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(mine))
    monkeypatch.setattr(sys, "argv", [script])
    capsys.readouterr()
    runpy.run_path(script, run_name="__main__")
    Path(script).write_text(code, encoding="utf-8")
    first, second, *said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 1 of 2: loss \d+\.\d{3}", first)
    assert re.fullmatch(r"epoch 2 of 2: loss \d+\.\d{3}", second)
    assert f"sha256: {sha256_file(mine / 'digits-t1-seed0.safetensors')}" in said
    assert typed(monkeypatch, *check.split()) == 1
    change_entry(mine, ("authors: []", "authors: [Ada]"), ('licence: ""', "licence: MIT"))
    describe(mine)
    fill_in(mine)
    capsys.readouterr()
    assert typed(monkeypatch, *check.split()) == 0
    assert capsys.readouterr().out == "my-ode: good; weights files here: 1\n"


def test_the_page_names_every_key_and_every_licence() -> None:
    page = (ROOT / "docs" / "entries.md").read_text(encoding="utf-8")
    keys = page.split("## The keys")[1].split("\n## ")[0]
    for model in (Entry, Use, Weights, ClaimedFigure):
        for key in model.model_fields:
            assert re.search(rf"\b{key}\b", keys), key
    assert ", ".join(ACCEPTED) in " ".join(page.split())


@pytest.mark.parametrize("name", ["My-ode", "my_ode", "../x", "-a", "a--b", "a/b", "a" * 41, "é", "a\n", ""])
def test_an_id_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no id; use small letters, digits and single dashes"):
        new_entry(name, tmp_path / "entries")
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_registered_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'kd-ode' is the name of a registered model; choose another id"):
        new_entry("kd-ode", tmp_path)
    assert list(tmp_path.iterdir()) == []
