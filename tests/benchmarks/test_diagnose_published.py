"""The published models are diagnosed, each once, by what the script plans."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from diagnose_published import PUBLISHED, diagnosis, identities

from odebench.dataset import load_dataset
from odebench.protocol.spec import Evaluation
from odebench.result.file import read_result, result_files
from odebench.result.outcome import EXAMINATION
from odebench.result.schema import Result


@pytest.fixture(scope="module")
def published() -> list[Result]:
    return [read_result(path) for path in result_files(PUBLISHED)]


def models(evaluations: Iterable[Evaluation]) -> list[tuple[object, ...]]:
    return sorted((one.model.weights, one.horizon or 0, str(one.solver)) for one in evaluations)


def test_every_published_model_is_named_once_and_is_examined(published: list[Result]) -> None:
    named = models(identities().values())
    assert named == sorted(set(named))
    assert named == sorted(set(models(result.evaluation for result in published)))
    examined = [result for result in published if {check.id for check in result.checks} >= set(EXAMINATION)]
    assert sorted(set(models(result.evaluation for result in examined))) == named
    assert not [result.run_key for result in examined if result.doubt]


def test_what_is_planned_is_what_is_published(published: list[Result]) -> None:
    data = load_dataset("digits")
    keys = {result.run_key for result in published}
    for title in ("digits ode T=2.0 (1.0) rk4", "digits resnet"):
        chosen = next(one for name, one in identities().items() if name.startswith(title))
        planned = diagnosis(chosen, data, 100).evaluation
        assert models([planned]) == models([chosen])
        assert planned.run_key in keys
