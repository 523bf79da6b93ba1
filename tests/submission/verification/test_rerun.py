"""Committed results asked again: what must be at hand before a process that may not write asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_entry import write_field_entry
from result_factory import make_result

from odebench.dataset import describe_dataset, load_dataset
from odebench.evaluation.plan import EvaluationRequest, plan
from odebench.progress import SILENT
from odebench.protocol.recipe import Recipe
from odebench.submission.entry import read_entry
from odebench.submission.submitted_model import find_model
from odebench.submission.verification.committed_results import Committed
from odebench.submission.verification.rerun import Rerun


@pytest.mark.parametrize("sources", [True, False])
def test_the_sources_of_transfer_are_trained_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: bool
) -> None:
    trained: list[Recipe] = []
    monkeypatch.setattr(
        "odebench.submission.verification.rerun.find_or_train", lambda recipe, *_, **__: trained.append(recipe)
    )
    mine = write_field_entry(tmp_path / "entries", name="mine")
    data = load_dataset("digits")
    plans = [
        plan(
            EvaluationRequest(
                find_model(f"{mine}/"),
                "worst-case",
                attack_seed=seed,
                sources=["resnet", "resnet:seed=1", "self:gradient=adjoint"][: 2 + seed],
            ),
            describe_dataset("digits"),
            total=len(data.test),
        )
        for seed in (0, 1)
    ]
    result = make_result({0.1: "r" * 100}, model="mine")
    committed = [
        Committed(Path(f"{index}.json"), result.model_copy(update={"evaluation": each.evaluation}), each)
        for index, each in enumerate(plans)
    ]
    run = Rerun(mine, read_entry(mine), committed, [], {"digits": (0, 1)}, {"digits": data})
    (job,) = run.jobs(SILENT, sources=sources)
    assert [each.plan.evaluation.attack.seed for each in job.attacks] == [0, 1]
    assert sorted(recipe.train_seed for recipe in trained) == [0, 1] * sources
