"""The classifier of an entry's code asks a process, and is otherwise like one of this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from local_process import LocalProcess
from real_entry import PARTS, field_weights, write_field_entry
from safetensors.torch import save_file
from torch import Tensor

from odebench.dataset import load_dataset
from odebench.errors import ModelError, ModelProcessError
from odebench.evaluation.checks.answers import false_gradients, integrated_outside
from odebench.model.blueprint import Blueprint
from odebench.model.classifier import Answer, Classifier
from odebench.model.contributed import load_contribution
from odebench.model.definition import Contributed
from odebench.model.process import ModelProcess
from odebench.model.process_channel import TimeBudget
from odebench.model.process_classifier import DRAWN_GRADIENTS, ProcessClassifier
from odebench.model.question import Question
from odebench.numerics.precision import full_fp32
from odebench.protocol.spec import Solver, adaptive, fixed_step

IMAGES = load_dataset("digits").test.images[:40]


def blueprint(folder: Path, *, solver: Solver | None = None) -> Blueprint:
    solver = fixed_step(step=0.5) if solver is None else solver
    origin = Contributed(
        folder=folder,
        module="model",
        attribute="Net",
        arguments={"width": 16},
        image_shape=(1, 8, 8),
        n_classes=10,
        train_seed=0,
        horizon=1.0,
        solver=solver,
        key="0" * 64,
    )
    return Blueprint(origin, folder / "one.safetensors", 10, "cpu", 1.0, solver)


def here(plan: Blueprint) -> Classifier:
    assert isinstance(plan.origin, Contributed)
    assert plan.weights is not None
    module = load_contribution(plan.origin, plan.weights)
    return Classifier(module, n_classes=10, horizon=plan.horizon, solver=plan.solver)


def local(plan: Blueprint) -> ProcessClassifier:
    return ProcessClassifier.started(LocalProcess(plan))


def gradient(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    points = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(classifier.answer(points).logits, labels)
    return torch.autograd.grad(loss, points)[0]


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Blueprint]:
    with full_fp32():
        yield blueprint(write_field_entry(tmp_path))


@pytest.mark.fresh_process
def test_a_true_process_gives_the_same_bits(flow: Blueprint) -> None:
    there, own = ProcessClassifier.started(ModelProcess(flow)), here(flow)
    labels = torch.arange(40) % 10
    with there.frozen(), own.frozen():
        assert torch.equal(there.answer(IMAGES).logits, own.answer(IMAGES).logits)
        assert torch.equal(gradient(there, IMAGES, labels), gradient(own, IMAGES, labels))
        other = {"solver": fixed_step("euler", step=0.25), "horizon": 0.5}
        assert torch.equal(there.modified(**other).answer(IMAGES).logits, own.modified(**other).answer(IMAGES).logits)
    assert there.parameters == own.parameters
    assert there.process.report().changed is None
    process = there.process
    del there
    gc.collect()
    assert not process.open, "it ends when nobody has it any more"


def test_gradients_can_be_taken_twice_and_images_are_forgotten(flow: Blueprint) -> None:
    there = local(flow)
    points = IMAGES.clone().requires_grad_()
    logits = [there.answer(points).logits for _ in range(2)]
    served = there.process._served  # type: ignore[attr-defined]
    assert len(served.kept) == 2
    first, again = (torch.autograd.grad(logits[0].sum(), points, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert first.abs().max() > 0
    del logits
    gc.collect()
    with torch.no_grad():
        there.answer(IMAGES)
    assert not served.kept
    assert 0 < len(there.drawn) <= DRAWN_GRADIENTS


def test_fp64_is_asked_in_fp64_and_random_numbers_follow_the_generator(flow: Blueprint) -> None:
    there = local(flow)
    with torch.no_grad():
        assert there.in_fp64().answer(IMAGES.double()).logits.dtype == torch.float64
        assert there.ask(Question(IMAGES)).logits.shape == (40, 10)


def test_an_error_of_the_model_ends_nothing(flow: Blueprint) -> None:
    there = local(flow)
    with torch.no_grad():
        with pytest.raises(ModelError, match="cannot answer question 1: Net raised RuntimeError"):
            there.answer(IMAGES[:, :, :5])
        assert there.answer(IMAGES).logits.isfinite().all()
    there.close()
    with pytest.raises(ModelError, match="has ended: start another one"):
        there.answer(IMAGES)


@pytest.mark.parametrize("solver", [fixed_step(step=0.25), adaptive("dopri5", rtol=1e-4)])
def test_an_honest_field_integrated_outside_gives_its_answers(tmp_path: Path, solver: Solver) -> None:
    there = local(blueprint(write_field_entry(tmp_path), solver=solver))
    found = integrated_outside(there, IMAGES)
    assert (found.points, found.lies) == (8, ())


def test_a_whole_that_is_not_its_parts_is_seen(flow: Blueprint) -> None:
    assert isinstance(flow.origin, Contributed)
    folder = flow.origin.folder
    text = PARTS.replace(
        "return torch.tanh(self.rate(state))",
        "self.count = getattr(self, 'count', 0) + 1\n"
        "        return torch.tanh(self.rate(state)) * (1 + 0.1 * self.count)",
    )
    (folder / "parts.py").write_text(text, encoding="utf-8")
    (lie,) = integrated_outside(local(flow), IMAGES).lies
    assert lie.rule == "solver"
    assert "have other logits than its field, integrated outside" in lie.said


class Fewer(ProcessClassifier):
    """Says that its field was evaluated less often than it was."""

    def answer(self, images: Tensor) -> Answer:
        found = super().answer(images)
        assert found.nfe is not None
        return replace(found, nfe=found.nfe * 7 // 8)


@pytest.mark.parametrize(
    ("solver", "said"), [(fixed_step(step=0.25), "14, integrated outside 16"), (adaptive("dopri5", rtol=1e-4), "NFE")]
)
def test_an_nfe_that_is_too_low_is_seen(tmp_path: Path, solver: Solver, said: str) -> None:
    plan = blueprint(write_field_entry(tmp_path), solver=solver)
    (lie,) = integrated_outside(Fewer.started(LocalProcess(plan)), IMAGES).lies
    assert lie.rule == "solver"
    assert f"it says {'' if said == 'NFE' else 'NFE '}{said}" in lie.said


FALSE = """\
import torch
from torch import nn


class Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images):
        return images.clone()

    @staticmethod
    def backward(ctx, gradient):
        return {gradient}


class Net(nn.Module):
    def __init__(self, *, image_shape, n_classes, width):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.last = nn.Linear(width, n_classes)

    def forward(self, images):
        return self.last(torch.tanh(self.first(Turned.apply(images).flatten(1))))
"""


@pytest.mark.parametrize(("given", "lies"), [("gradient", 0), ("gradient.roll(3, -1)", 1)])
def test_gradients_that_were_given_are_looked_at_afterwards(tmp_path: Path, given: str, lies: int) -> None:
    plan = blueprint(write_field_entry(tmp_path))
    assert isinstance(plan.origin, Contributed)
    weights = {name.replace("stem.1", "first").replace("head", "last"): one for name, one in field_weights().items()}
    save_file({k: v for k, v in weights.items() if "field" not in k}, plan.origin.folder / "one.safetensors")
    (plan.origin.folder / "model.py").write_text(FALSE.format(gradient=given), encoding="utf-8")
    plan = replace(plan, origin=replace(plan.origin, horizon=None, solver=None), horizon=None, solver=None)
    there = local(plan)
    for part in torch.split(IMAGES, 5):
        gradient(there, part * 0.9 + 0.05, torch.zeros(5, dtype=torch.long))
    found = false_gradients(there)
    assert len(found) == lies
    assert integrated_outside(there, IMAGES).points is None
    if lies:
        assert "of 8 gradients, drawn from those that attacks were given, are not those of its logits" in found[0].said


def test_gradients_of_images_that_share_steps_are_compared_alone(tmp_path: Path) -> None:
    solver = adaptive("dopri5", rtol=1e-2, atol=1e-2, backend="torchdiffeq")
    there = local(blueprint(write_field_entry(tmp_path), solver=solver))
    for part in torch.split(IMAGES, 1):
        gradient(there, part * 0.9 + 0.05, torch.zeros(1, dtype=torch.long))
    asked = []
    answer = type(there).answer

    def counted(self: Any, images: Tensor) -> Answer:
        asked.append(len(images))
        return answer(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(there), "answer", counted)
        assert false_gradients(there) == ()
    assert {*asked} == {1}


def test_what_is_left_of_the_time_is_shared(flow: Blueprint) -> None:
    budget = TimeBudget(5.0, spent=5.0)
    assert budget.left == 0
    process = ModelProcess(flow, budget=budget)
    with pytest.raises(ModelProcessError, match=r"has not answered after 5 s and was stopped; .* --time-limit"):
        process.__enter__()
