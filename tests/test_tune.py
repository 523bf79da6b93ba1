"""The script that chooses recipes: as many trials for each model, whatever is asked for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from odebench.dataset.builtin import FASHION_MNIST
from odebench.model.definition import load_definition

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tune.py"


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tune", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tune", module)
    spec.loader.exec_module(module)
    return module


def trials(tune: ModuleType, name: str, **asked: Any) -> list[dict[str, float]]:
    """What the trials of a model change, where the accuracy is the learning rate."""

    class Pretended(tune.Bench):  # type: ignore[misc,name-defined]
        def trial(self, changes: dict[str, float]) -> Any:
            self.recipe(changes, 0)  # the recipe takes these changes
            return tune.Trial(changes, (changes["learning_rate"],))

    bench = Pretended(name, FASHION_MNIST, None, None, 1.0, [0], **asked)
    return [trial.changes for trial in bench.trials()]


def test_each_model_has_twelve_trials_the_default_among_them(tune: ModuleType) -> None:
    plain, distilled = trials(tune, "ode"), trials(tune, "kd-ode")
    assert len(plain) == len(distilled) == 12
    schedule = load_definition("ode").recipe(FASHION_MNIST).schedule
    assert {"learning_rate": schedule.learning_rate, "epochs": schedule.epochs} in plain[:8]
    assert plain[:8] == distilled[:8]
    assert all(len({str(one) for one in each}) == 12 for each in (plain, distilled))


def test_fewer_are_as_many_for_each(tune: ModuleType) -> None:
    asked: dict[str, Any] = {"rates": [0.004, 0.01], "epochs": [3], "more": 2}
    plain, distilled = trials(tune, "ode", **asked), trials(tune, "kd-ode", **asked)
    first = [{"learning_rate": 0.004, "epochs": 3}, {"learning_rate": 0.01, "epochs": 3}]
    assert plain == [*first, {**first[1], "batch_size": 64}, {**first[1], "weight_decay": 0.005}]
    assert distilled == [*first, *({**first[1], "temperature": t, "weight": a} for t, a in ((2.0, 0.9), (4.0, 0.5)))]
    assert len(trials(tune, "ode", **{**asked, "more": 0})) == 2
