"""Check 19: honest models answer alike before and after an attack, however they are asked; deceiving ones do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

import pytest
import torch
from small_model import Linear, fitted, linear
from stateful_models import BatchAware, Counting, GradientAware, Keeping, Locked, Memory, Tired
from torch import Tensor, nn

from odebench.dataset import Dataset, load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import ModelProcessError
from odebench.evaluation.checks import state as module_of_check
from odebench.evaluation.checks.state import Start, state
from odebench.evaluation.fresh_start import start_of_module, start_of_plan
from odebench.evaluation.loading import LoadedModels, load_models
from odebench.evaluation.plan import EvaluationRequest, plan
from odebench.model.blueprint import Blueprint
from odebench.model.classifier import Classifier
from odebench.model.ode import OdeNet
from odebench.model.process import ModelProcess
from odebench.model.question import ProcessAnswer, Question, answer_question
from odebench.model.resnet import ResNet
from odebench.model.training import find_or_train
from odebench.numerics.seeding import seeded
from odebench.progress import SILENT
from odebench.protocol.spec import Solver, adaptive, fixed_step
from odebench.result.schema import Check


@cache
def digits() -> Dataset:
    return load_dataset("digits")


@cache
def flat() -> Linear:
    """A linear model that was trained for a few epochs."""
    return cast(Linear, fitted(linear(10), digits(), epochs=2))


def ode_net(solver: Solver) -> OdeNet:
    with seeded(0):
        return OdeNet(image_shape=(1, 8, 8), n_classes=10, channels=4, stem="pool", horizon=1.0, solver=solver).eval()


class Local(ModelProcess):
    """The model of a blueprint, built anew in this process: as fresh as one of its own, and free."""

    def __enter__(self) -> Local:
        self.classifier = self.blueprint.build(torch.float32)
        self.asked: list[Question] = []
        return self

    def ask(self, question: Question, *, seconds: float | None = None) -> ProcessAnswer:
        self.asked.append(question)
        return answer_question(self.classifier, question)


def local(classifier: Classifier) -> Start:
    """A fresh start without another process; the bytes are taken now."""
    blueprint = Blueprint.of_module(classifier)
    return lambda: Local(blueprint)


def checked(
    module: nn.Module,
    start: Callable[[Classifier], Start] = local,
    *,
    n: int = 40,
    alone: bool = False,
    candidates: bool = True,
    calls: int = 60,
) -> Check:
    """Check 19 of a module that is asked about clean images, and attacked by random signs, in between."""
    classifier = Classifier(module, n_classes=10)
    fresh = start(classifier)
    images = digits().test.images
    with classifier.frozen():
        clean = classifier.answer(images[:100])
        labels = clean.logits.argmax(1)  # each is correct by construction
        noise = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)).sign()
        points = (images[:n] + 0.1 * noise).clamp(0, 1)
        for _ in range(calls):
            classifier.answer(points[:2].clone())
    last = dict(enumerate(points)) if candidates else {}
    with state(classifier, fresh, images[:n], labels[:n], last, alone=alone, randomised=False) as finish:
        return finish()


# --- honest ------------------------------------------------------------------------------------------------------


def test_an_honest_model_passes_in_a_true_process() -> None:
    with seeded(0):
        normed = ResNet(image_shape=(1, 8, 8), n_classes=10, widths=[4], strides=[1]).eval()
    found = checked(Counting(Keeping(normed)), start_of_module)
    assert (found.id, found.name, found.status, found.speaks_of) == (19, "state", "pass", "model")
    assert (found.k, found.n) == (0, 32)
    assert found.evidence == {"letters": 0, "attacked": 32}


@pytest.mark.parametrize("solver", [fixed_step(step=0.25), adaptive(rtol=1e-3)], ids=str)
def test_an_integrated_model_passes(solver: Solver) -> None:
    found = checked(ode_net(solver), calls=1)
    assert (found.status, found.k, found.n) == ("pass", 0, 32)


def test_a_model_whose_images_share_a_step_is_asked_alone() -> None:
    coupled = ode_net(adaptive("dopri5", rtol=1e-3, backend="torchdiffeq"))
    found = checked(coupled, alone=True, calls=1)
    assert (found.status, found.k, found.n) == ("pass", 0, 16)


# --- deceiving ---------------------------------------------------------------------------------------------------


def test_a_memory_of_clean_images_flags_in_a_true_process() -> None:
    found = checked(Memory(flat()), start_of_module)
    assert (found.status, found.speaks_of) == ("flag", "model")
    assert found.k == 32


@pytest.mark.parametrize("mask", [Memory, Tired, GradientAware, BatchAware])
def test_a_model_with_a_state_flags(mask: type[nn.Module]) -> None:
    found = checked(mask(flat()))
    assert found.status == "flag"
    assert found.k == 32


def test_letters_that_change_are_counted() -> None:
    assert checked(Tired(flat())).evidence["letters"] == 32
    assert checked(GradientAware(flat())).evidence["letters"] == 0


def test_without_candidates_the_clean_images_are_compared() -> None:
    found = checked(Tired(flat()), candidates=False)
    assert (found.status, found.evidence["attacked"]) == ("flag", 0)
    assert checked(Memory(flat()), candidates=False).status == "pass"


@pytest.mark.parametrize(("moved", "status"), [(1, "pass"), (2, "flag")])
def test_the_count_decides(moved: int, status: str) -> None:
    images, labels = digits().test.images[:32], torch.zeros(32, dtype=torch.long)
    weight = torch.zeros(10, 64)
    weight[0] = 1.0
    before, after = Linear(weight, torch.zeros(10)), Linear(weight, torch.zeros(10))

    class Other(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            logits: Tensor = after(points)
            known = (points[:, None] == images[None, :moved]).flatten(2).all(2).any(1)
            return logits * torch.where(known, 1 + 2e-4, 1.0)[:, None]

    start = local(Classifier(before, n_classes=10))
    with state(Classifier(Other(), n_classes=10), start, images, labels, {}, alone=False, randomised=False) as finish:
        found = finish()
    assert (found.k, found.status) == (moved, status)


def test_a_near_tie_may_fall_either_way() -> None:
    class Tied(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            tilt = 1e-6 if torch.is_grad_enabled() else -1e-6
            return torch.tensor([1.0 + tilt, 1.0, *[0.0] * 8]) + 0 * points.flatten(1)[:, :10]

    classifier, labels = Classifier(Tied(), n_classes=10), torch.zeros(32, dtype=torch.long)
    images = digits().test.images[:32]
    with state(classifier, local(classifier), images, labels, {}, alone=False, randomised=False) as finish:
        found = finish()
    assert (found.k, found.status, found.evidence["letters"]) == (0, "pass", 0)


def test_a_failure_on_one_side_moves_an_image() -> None:
    images, labels = digits().test.images[:32], torch.zeros(32, dtype=torch.long)
    start = local(Classifier(Linear(torch.zeros(10, 64), torch.zeros(10)), n_classes=10))
    infinite = Linear(torch.zeros(10, 64), torch.full((10,), torch.inf))
    with state(Classifier(infinite, n_classes=10), start, images, labels, {}, alone=False, randomised=False) as finish:
        found = finish()
    assert (found.k, found.status) == (32, "flag")


# --- how it asks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True])
def test_candidates_come_first_and_all_ways_are_asked(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(flat(), n_classes=10)
    fresh = Local(Blueprint.of_module(classifier))
    images = digits().test.images[:20]
    candidates = {row: images[row] * 0.9 for row in (1, 3, 4)}
    labels = digits().test.labels[:20]
    here: list[Question] = []

    def recorded(one: Classifier, question: Question) -> ProcessAnswer:
        if one is classifier:
            here.append(question)
        return answer_question(one, question)

    monkeypatch.setattr(module_of_check, "answer_question", recorded)
    with state(classifier, lambda: fresh, images, labels, candidates, alone=alone, randomised=False) as finish:
        finish()
    n = 16 if alone else 20
    held = torch.stack([*candidates.values()])
    is_candidate = [bool((one.images[:1] == held).flatten(1).all(1).any()) for one in fresh.asked]
    assert is_candidate == sorted(is_candidate, reverse=True)
    assert 0 < sum(is_candidate) < len(is_candidate)
    sizes = {(len(one.images), one.gradients) for one in fresh.asked}
    assert sizes == (
        {(1, False), (1, True)}
        if alone
        else {(100, False), (3, False), (3, True), (n, True), (7, False), (6, False), (1, False), (1, True)}
    )
    assert len(fresh.asked) <= (2 * (n + 3) if alone else 25)
    assert len(here) == len(fresh.asked)
    assert all(torch.equal(one.images, other.images) for one, other in zip(here, fresh.asked, strict=True))


# --- skipped -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_skipped_and_says_why() -> None:
    classifier = Classifier(flat(), n_classes=10)
    images, labels = digits().test.images[:4], digits().test.labels[:4]

    def found(start: Start | None, n: int = 4, *, randomised: bool = False) -> tuple[str, str, str]:
        with state(classifier, start, images[:n], labels[:n], {}, alone=False, randomised=randomised) as finish:
            check = finish()
        return check.status, check.speaks_of, check.why

    assert found(None) == ("skipped", "settings", "there is no way to build the model a second time")
    assert found(local(classifier), 0) == ("skipped", "model", "no image is classified correctly")
    randomised = "the model draws random numbers: no two answers agree"
    assert found(local(classifier), randomised=True) == ("skipped", "model", randomised)
    status, whom, why = found(start_of_module(Classifier(Locked(flat()), n_classes=10)))
    assert (status, whom) == ("skipped", "settings")
    assert why.startswith("no fresh copy of the model answers: Locked cannot be copied to another process")


def test_a_process_that_fails_is_skipped() -> None:
    class Dying(Local):
        def ask(self, question: Question, *, seconds: float | None = None) -> ProcessAnswer:
            raise ModelProcessError("the model's process ended with code 1")

    found = checked(flat(), lambda classifier: lambda: Dying(Blueprint.of_module(classifier)))
    assert (found.status, found.speaks_of) == ("skipped", "settings")
    assert found.why == "no fresh copy of the model answers: the model's process ended with code 1"


# --- the start of a plan -----------------------------------------------------------------------------------------


def test_a_plan_starts_from_the_weights_that_were_loaded(narrow: None) -> None:
    chosen = plan(EvaluationRequest("ode-ablated", "fgsm", changes={"epochs": 1}), DIGITS, total=500)
    models = load_models(chosen, digits(), "cpu", SILENT)
    start = start_of_plan(chosen, models)
    process = start()
    assert process.blueprint.origin == chosen.origin
    images = Question(digits().test.images[:5])
    there = answer_question(process.blueprint.build(torch.float32), images)
    assert torch.equal(there.logits, answer_question(models.classifier, images).logits)
    other = LoadedModels(models.classifier, "0" * 64)
    with pytest.raises(ModelProcessError, match="that the model was loaded from is not there any more"):
        start_of_plan(chosen, other)()
    weights = find_or_train(chosen.recipe, digits()).path
    weights.unlink()
    with pytest.raises(ModelProcessError, match="is not there any more"):
        start()
