"""Published models trained again: equal bytes, other bytes, what cannot be asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from odebench.cli import _exit_code
from odebench.dataset import load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import UsageError
from odebench.evaluation.evaluate import run
from odebench.evaluation.model_reference import RegisteredModel
from odebench.evaluation.plan import EvaluationRequest, Slice, plan
from odebench.model.definition import load_definition
from odebench.result.file import result_files
from odebench.submission.verification.retraining import retrain


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a distilled model of two train seeds, trained in one epoch on fifty images."""
    folder = tmp_path_factory.mktemp("trained")
    data = load_dataset("digits")
    small = {"epochs": 1, "train_images": 50, "teacher_epochs": 1, "teacher_train_images": 50, "channels": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ODEBENCH_CACHE", str(folder / "cache"))
        for seed in (0, 1):
            request = EvaluationRequest(
                RegisteredModel(load_definition("kd-ode")),
                "fgsm",
                images=Slice(n=10, chunk=10),
                epsilons=(0.1,),
                horizon=0.5,
                train_seed=seed,
                changes=small,
            )
            run(plan(request, DIGITS, total=len(data.test)), data, results=folder / "results")
    return folder / "results"


def test_equal_recipes_give_equal_bytes_and_other_bytes_are_named(trained: Path, tmp_path: Path) -> None:
    found = retrain("kd-ode", [trained, tmp_path / "none"], dataset="digits", draw=1)
    assert [one.equal for one in found] == [True, True]
    assert sorted(one.title for one in found) == ["kd-ode on digits seed 0 T=0.5", "kd-ode on digits seed 1 T=0.5"]
    for number, path in enumerate(sorted(result_files(trained))):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if number == 0:
            stored["found"]["weights_sha256"] = "0" * 64
        else:
            stored["found"]["trained_on"]["device"] = "cuda"
        (tmp_path / path.name).write_text(json.dumps(stored), encoding="utf-8")
    (other,) = retrain("kd-ode", [tmp_path], dataset=None, draw=1)
    assert (other.equal, other.recorded, other.why) == (False, "0" * 64, "")
    assert other.found is not None


def test_weights_of_another_torch_may_differ_and_those_of_unknown_origin_are_not_trained(
    trained: Path, tmp_path: Path
) -> None:
    first, second = sorted(result_files(trained))
    stored = json.loads(first.read_text(encoding="utf-8"))
    stored["found"] |= {"weights_sha256": "0" * 64, "trained_on": {"device": "cpu", "torch": "1.0"}}
    (tmp_path / first.name).write_text(json.dumps(stored), encoding="utf-8")
    unknown = json.loads(second.read_text(encoding="utf-8"))
    unknown["found"]["trained_on"] = None
    (tmp_path / second.name).write_text(json.dumps(unknown), encoding="utf-8")
    (other,) = retrain("kd-ode", [tmp_path], dataset=None, draw=1)
    assert not other.equal
    assert other.why.startswith("differs, as it may: torch 1.0 trained it, and this is ")


def test_the_command_says_which_trainings_give_equal_bytes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["odebench", "verify", "kd-ode", "--retrain", "--draw", "1", *words])
        return _exit_code(), capsys.readouterr().out

    path = sorted(result_files(trained))[0]
    stored = json.loads(path.read_text(encoding="utf-8"))
    code, out = verify("--results", str(path.parent))
    assert (code, out.splitlines()[-1]) == (0, "kd-ode: 2 of 2 trainings give the recorded bytes (--draw 1)")
    assert f"{stored['found']['weights_sha256']} recorded, equal" in " ".join(out.split())
    stored["found"]["weights_sha256"] = "0" * 64
    (tmp_path / path.name).write_text(json.dumps(stored), encoding="utf-8")
    code, out = verify("--results", str(tmp_path), "--json")
    (one,) = json.loads(out)["trained"]
    assert (code, one["recorded"], one["equal"]) == (1, "0" * 64, False)


def test_nothing_to_train_is_one_line(trained: Path) -> None:
    with pytest.raises(UsageError, match="no result of ode says what was trained on a processor"):
        retrain("ode", [trained], dataset=None, draw=0)
