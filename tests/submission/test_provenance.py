"""Where published figures come from: commands that make them again, and claims beside what was measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from result_factory import make_result

from odebench.leaderboard.read import read_results
from odebench.leaderboard.union import StoredResult
from odebench.submission.provenance import provenance

ROOT = Path(__file__).parents[2] / "leaderboard"
MODEL = "tis-ode"


@pytest.fixture(scope="module")
def stored() -> list[StoredResult]:
    found, problems = read_results([ROOT / "results" / MODEL])
    assert problems == []
    return found


def test_claims_stand_beside_the_results_about_the_same_evaluation(tmp_path: Path, stored: list[StoredResult]) -> None:
    shutil.copytree(ROOT / "entries" / MODEL, tmp_path / MODEL)
    entry = tmp_path / MODEL / "entry.yaml"
    text = entry.read_text(encoding="utf-8")
    assert text.count("robust_accuracy: 0.638") == text.count("robust_accuracy: 0.656") == 1
    wrong = text.replace("robust_accuracy: 0.638", "robust_accuracy: 0.738")
    # no result is about the first 400 images
    unknown = wrong.replace("n: 500, clean_accuracy: 0.972, robust_accuracy: 0.656", "n: 400, robust_accuracy: 0.656")
    assert unknown != wrong != text
    entry.write_text(unknown, encoding="utf-8")
    found = list(provenance(tmp_path).claimed(MODEL, stored))
    assert [claim.agrees for claim in found] == [False, None, True, True, True, True]
    assert (found[0].claimed, found[0].attack, found[0].n) == (0.738, "pgd", 500)
    assert found[0].measured is not None
    assert found[0].measured.value == 0.638
    assert found[0].path in [item.path for item in stored if item.evaluation.attack.name == "pgd"]
    assert found[1].path is None
    assert list(provenance(tmp_path).claimed("no-entry", stored)) == []
    assert list(provenance(None).claimed(MODEL, stored)) == []


def test_a_command_hangs_on_no_other_folder_than_that_of_the_entries(
    tmp_path: Path, stored: list[StoredResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (command,), count = provenance(ROOT / "entries").commands([stored[0].result])
    assert count == 1
    assert command.startswith(f"odebench {'diagnose' if 'diagnosis' in stored[0].evaluation.attack.name else 'run'}")
    assert f"--model {MODEL}" in command
    assert command.endswith("--trust"), "it brings code"
    assert provenance(tmp_path).commands([stored[0].result]) == ([], 0)
    built_in = make_result({0.1: "r" * 100}, model="kd-ode", attack="pgd")
    (command,), _ = provenance(None).commands([built_in])
    assert command.startswith("odebench run --model kd-ode --attack pgd --dataset digits")


def test_how_a_model_was_trained_is_told_by_its_recipe_or_its_entry(stored: list[StoredResult]) -> None:
    trained = provenance(ROOT / "entries").trained
    ours = {"loss": "cross-entropy + 0.1 steady-state term"}
    assert trained(stored[0].result).items() >= ours.items()
    built_in = make_result({0.1: "r"}, model="kd-ode", arguments={"epochs": 3, "adversary": "trades"}, weights="other")
    assert trained(built_in) == {
        "loss": "distillation, temperature 4, weight 0.9",
        "teacher": "resnet",
        "adversarial training": "trades, epsilon 0.1, steps 7, step 0.03571, beta 6",
        "training": "epochs 3, batch size 32, learning rate 0.01, weight decay 0.0005, warmup 0.2",
    }
    rslad = make_result({0.1: "r"}, model="rslad-kd-ode")
    assert trained(rslad)["teacher"] == "resnet (madry, epsilon 0.1, steps 7, step 0.03571)"
    given = make_result({0.1: "r"}, model="kd-ode", weights="kd-ode 0")
    assert given.evaluation.model.weights == given.found.weights_sha256
    assert trained(given) == {}, "weights of a file, which no recipe made"
    assert trained(make_result({0.1: "r"}, model="nobody")) == {}


def test_an_entry_that_cannot_be_read_is_said_once(tmp_path: Path, stored: list[StoredResult]) -> None:
    shutil.copytree(ROOT / "entries" / MODEL, tmp_path / MODEL)
    entry = tmp_path / MODEL / "entry.yaml"
    entry.write_text(entry.read_text(encoding="utf-8").replace("epsilon: 0.1", "epsilon: 1.0e+308", 1))
    found = provenance(tmp_path)
    assert list(found.problems) == []
    assert list(found.claimed(MODEL, stored)) == []
    assert found.adversarial(MODEL) is False
    (problem,) = found.problems
    assert str(problem).startswith(f"{entry}, line ")
    assert "epsilon cannot be 1e+308: it must be at most 10000" in str(problem)
