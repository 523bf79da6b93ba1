"""Whole evaluations whose model is started a second time, in a process of its own, for check 19."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from masked_models import Memory
from real_entry import write_real_entry
from small_model import SmallOde, fitted
from stateful_models import Locked, Wrapped
from torch import nn

import odebench
from odebench.dataset import describe_dataset, load_dataset
from odebench.errors import ModelProcessError
from odebench.evaluation.evaluate import run
from odebench.evaluation.fresh_start import started_early
from odebench.evaluation.plan import EvaluationRequest, Slice, plan
from odebench.model.blueprint import Blueprint
from odebench.model.process import ModelProcess
from odebench.result.schema import Check, Result
from odebench.submission.submitted_model import find_model

N = 20


def check_19(result: Result) -> Check:
    return {check.id: check for check in result.checks}[19]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return fitted(SmallOde(), load_dataset("digits"), epochs=2)


def evaluated(module: nn.Module) -> list[Result]:
    threat = odebench.ThreatModel(norm="linf", epsilons=(0.05,))
    options: dict[str, Any] = {"threat_model": threat, "images": Slice(n=N, chunk=N)}
    return odebench.evaluate(module, "digits", attacks=["pgd", "quick-diagnosis"], **options)


@pytest.mark.fresh_process
def test_a_model_that_remembers_images_is_flagged_and_its_twin_is_not(net: nn.Module) -> None:
    honest, masked = evaluated(Wrapped(net)), evaluated(Memory(Wrapped(net)))
    # Two attacks of one call share the check.
    assert [check_19(result).status for result in honest] == ["pass", "pass"]
    assert check_19(honest[0]).k == 0
    assert check_19(masked[0]).status == "flag"
    assert "state" in masked[0].flags
    assert "check 19, state, flags" in masked[0].doubt


@pytest.mark.fresh_process
def test_a_module_that_cannot_be_started_again_is_evaluated_all_the_same(net: nn.Module) -> None:
    for result in evaluated(Locked(net)):
        found = check_19(result)
        assert (found.status, found.speaks_of) == ("skipped", "settings")
        assert "cannot be copied to another process" in found.why
        assert "state" not in result.flags


@pytest.mark.fresh_process
@pytest.mark.usefixtures("narrow")
def test_a_registered_model_is_started_from_its_weights(tmp_path: Path) -> None:
    described, data = describe_dataset("digits"), load_dataset("digits")
    request = EvaluationRequest(
        "ode", "pgd", images=Slice(n=N, chunk=N), changes={"epochs": 1}, parameters={"steps": 2}, horizon=0.5
    )
    result, _, _ = run(plan(request, described, total=len(data.test)), data, results=tmp_path)
    assert (check_19(result).status, check_19(result).k) == ("pass", 0)


def test_a_start_that_fails_says_so_where_it_is_entered() -> None:
    def start() -> Any:
        raise ModelProcessError("no such model")

    with started_early(start) as started, pytest.raises(ModelProcessError, match="no such model"), started():
        raise AssertionError("nothing was started")


@pytest.mark.fresh_process
@pytest.mark.parametrize("seconds", [0.0, 1.5])
def test_a_start_that_is_not_wanted_any_more_ends_at_once(tmp_path: Path, seconds: float) -> None:
    """The thread that waits for the model to be built hears of it, whether its process has begun or not."""
    hangs = "import time\ntime.sleep(100)\n"
    mine = write_real_entry(tmp_path, code=hangs)
    request = EvaluationRequest(find_model(str(mine)), "fgsm", images=Slice(n=N, chunk=N))
    origin = plan(request, describe_dataset("digits"), total=500).origin
    blueprint = Blueprint(origin, mine / "one.safetensors", 10, "cpu", None, None)
    with started_early(lambda: ModelProcess(blueprint)):
        time.sleep(seconds)
        began = time.monotonic()
    assert time.monotonic() - began < 10
