"""Models by their name in Python: with published weights, ready to be asked; and what is said where there are none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import odebench
from odebench.dataset import load_dataset
from odebench.errors import UsageError
from odebench.model.classifier import Classifier
from odebench.result.file import read_result
from odebench.submission.submitted_model import find_entry

PUBLISHED = Path(__file__).parents[2] / "leaderboard"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(PUBLISHED))


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(("name", "horizon"), [("kd-ode", 1), ("resnet", None)])
def test_a_published_model_answers_as_its_results_say(name: str, horizon: float | None) -> None:
    model = odebench.load_model(name, dataset="digits", horizon=horizon, seed=0)
    assert not model.training
    path = next(
        path
        for path in sorted((PUBLISHED / "results" / name).glob("digits-fgsm-*.json"))
        if read_result(path).evaluation.horizon == horizon and read_result(path).evaluation.model.train_seed == 0
    )
    result = read_result(path)
    test = load_dataset("digits").test.part(slice(0, result.evaluation.dataset.n))
    with torch.no_grad():
        wrong = model(test.images).argmax(1) != test.labels
    assert wrong.tolist() == [letter == "m" for letter in result.epsilons[0].outcomes]


@pytest.mark.usefixtures("published")
def test_the_code_of_an_entry_runs_only_where_it_is_trusted() -> None:
    with pytest.raises(UsageError, match=r"tis-ode runs .*model.py, .*: read it, then give trust=True"):
        odebench.load_model("tis-ode")
    model = odebench.load_model("tis-ode", trust=True)
    images = load_dataset("digits").test.part(slice(0, 4)).images
    with torch.no_grad():
        assert torch.equal(model(images), Classifier(model, n_classes=10).answer(images).logits)


def test_missing_weights_are_not_trained_in_silence() -> None:
    said = "no weights of ode here; train them by: odebench train --model ode --dataset digits --horizon 2 --seed 3"
    with pytest.raises(UsageError, match=said):
        odebench.load_model("ode", horizon=2, seed=3)
    with pytest.raises(UsageError, match=said):
        odebench.load_model("ode", horizon=np.float32(2), seed=np.int64(3))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="odebench train --model resnet --dataset digits --seed 0"):
        odebench.load_model("resnet")


def test_wrong_names_and_types_get_one_sentence() -> None:
    with pytest.raises(UsageError, match="unknown model 'kd-odd'; did you mean 'kd-ode'"):
        odebench.load_model("kd-odd")
    with pytest.raises(UsageError, match="unknown data set 'digit'; did you mean 'digits'"):
        odebench.load_model("ode", "digit")
    with pytest.raises(UsageError, match="resnet integrates nothing"):
        odebench.load_model("resnet", horizon=1)
    with pytest.raises(UsageError, match="by its name, such as 'kd-ode', not from int"):
        odebench.load_model(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a data set is named, such as 'digits', not int"):
        odebench.load_model("ode", 3)  # type: ignore[arg-type]
    wrong: dict[str, object] = {"horizon": "x", "seed": "0", "trust": "yes", "data_dir": 3}
    for key, value in [*wrong.items(), ("horizon", True), ("seed", False), ("seed", 1.0), ("seed", np.float64(1))]:
        with pytest.raises(UsageError, match=f"{key} must be such as {key}=.*, not {re.escape(repr(value))}$"):
            odebench.load_model("ode", **{key: value})  # type: ignore[arg-type]


def test_a_listed_model_without_an_entry_is_told_so() -> None:
    with pytest.raises(UsageError, match="ode has no entry here; odebench new-entry ode --published writes it"):
        find_entry("ode")
