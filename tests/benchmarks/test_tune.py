"""The script that chooses recipes: as many trials for each model, whatever is asked for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from odebench.dataset.builtin import DIGITS, FASHION_MNIST
from odebench.dataset.definition import DatasetDefinition
from odebench.model.definition import load_definition

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tune.py"


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tune", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tune", module)
    spec.loader.exec_module(module)
    return module


def trials(
    tune: ModuleType, name: str, *, on: DatasetDefinition = FASHION_MNIST, **asked: Any
) -> list[dict[str, float]]:
    """What the trials of a model change, where the accuracy is the learning rate."""

    class Pretended(tune.Bench):  # type: ignore[misc,name-defined]
        def trial(self, changes: dict[str, float]) -> Any:
            self.recipe(changes, 0)  # the recipe takes these changes
            return tune.Trial(changes, (changes["learning_rate"],))

    bench = Pretended(name, on, None, None, 1.0, [0], **asked)
    return [trial.changes for trial in bench.trials()]


def test_each_model_has_twelve_trials_the_default_among_them(tune: ModuleType) -> None:
    for on in (DIGITS, FASHION_MNIST):
        plain, distilled = trials(tune, "ode", on=on), trials(tune, "kd-ode", on=on)
        assert len(plain) == len(distilled) == 12
        for name, found in (("ode", plain), ("kd-ode", distilled)):
            schedule = load_definition(name).recipe(on).schedule
            assert {"learning_rate": schedule.learning_rate, "epochs": schedule.epochs} in found[:8]
    plain, distilled = trials(tune, "ode", on=DIGITS), trials(tune, "kd-ode", on=DIGITS)
    assert plain[:8] == distilled[:8]
    assert all(len({str(one) for one in each}) == 12 for each in (plain, distilled))


def test_fewer_are_as_many_for_each(tune: ModuleType) -> None:
    asked: dict[str, Any] = {"rates": [0.004, 0.01], "epochs": [3], "more": 2, "start": {"batch_size": 128}}
    plain, distilled = trials(tune, "ode", **asked), trials(tune, "kd-ode", **asked)
    first = [{"learning_rate": 0.004, "epochs": 3}, {"learning_rate": 0.01, "epochs": 3}]
    assert plain == [*first, {**first[1], "batch_size": 64}, {**first[1], "weight_decay": 0.005}]
    assert distilled == [*first, *({**first[1], "temperature": t, "weight": a} for t, a in ((2.0, 0.9), (4.0, 0.5)))]
    assert len(trials(tune, "ode", **{**asked, "more": 0})) == 2


def test_trials_start_where_they_are_told_to(tune: ModuleType) -> None:
    asked: dict[str, Any] = {"rates": [0.01], "epochs": [4], "more": 1}
    start = {"batch_size": 32, "temperature": 8.0, "weight": 0.25}
    assert trials(tune, "ode", **asked, start=start)[1]["batch_size"] == 16
    bench = tune.Bench("kd-ode", FASHION_MNIST, None, None, 1.0, [0], **asked, start=start)
    first = bench.recipe({"learning_rate": 0.01}, 0)
    assert (first.schedule.batch_size, first.loss.temperature, first.loss.weight) == (32, 8.0, 0.25)
    assert bench.recipe({"temperature": 2.0}, 0).loss.temperature == 2.0


@pytest.mark.parametrize(
    "words",
    [
        ["--device", "nope"],
        ["--dataset", "digit"],
        ["--models", "ode,oed"],
        ["--set", "batch_size=x"],
        ["--set", "batch_size"],
        ["--set", "batchsize=64"],
        ["--models", "ode", "--set", "temperature=4"],
        ["--set", "adversary=madry"],
    ],
)
def test_wrong_words_are_a_line(tune: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tune.main(words)
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


def test_what_is_set_has_the_type_that_the_recipe_holds(tune: ModuleType) -> None:
    found = tune._start("batch_size=64,teacher_epochs=24,temperature=2,weight=0.5", ["ode", "kd-ode"], FASHION_MNIST)
    assert [(name, value, type(value)) for name, value in found.items()] == [
        ("batch_size", 64, int),
        ("teacher_epochs", 24, int),
        ("temperature", 2.0, float),
        ("weight", 0.5, float),
    ]
