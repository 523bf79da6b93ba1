"""Asking a model: wrong answers are errors, failures have zero logits, and nothing of the module is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from odebench.errors import ModelError, UsageError
from odebench.model.classifier import Classifier
from odebench.model.definition import load_definition
from odebench.model.solver import integrate
from odebench.model.training import build
from odebench.protocol.spec import Solver, adaptive, fixed_step

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Answering(nn.Module):
    """A discrete module that answers as it is told."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


class Growing(nn.Module):
    """A user's own ODE classifier, its parts methods: mean pixel m, y' = rate y, logits (y(T), 0)."""

    def __init__(self, solver: Any, horizon: Any = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate))
        self.horizon, self.solver = horizon, solver

    def stem(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1, keepdim=True)

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        return self.rate * state

    def head(self, state: Tensor) -> Tensor:
        return torch.cat([state, torch.zeros_like(state)], 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: torch.zeros(3), r"logits of shape \(3,\) for 3 images of 2 classes; expected \(3, 2\)"),
        (lambda x: torch.zeros(3, 5), r"shape \(3, 5\) for 3 images of 2 classes; expected \(3, 2\)"),
        (lambda x: torch.zeros(1, 2), r"shape \(1, 2\) for 3 images"),
        (lambda x: torch.zeros(3, 2, 1), r"shape \(3, 2, 1\) for 3 images"),
        (lambda x: torch.zeros(3, 2, dtype=torch.long), "torch.int64, not floating-point logits"),
        (lambda x: torch.zeros(3, 2, dtype=torch.bool), "torch.bool, not floating-point logits"),
        (lambda x: torch.zeros(3, 2, dtype=torch.complex64), "torch.complex64, not floating-point logits"),
        (lambda x: (torch.zeros(3, 2), None), "tuple, not a tensor of logits"),
        (lambda x: None, "NoneType, not a tensor of logits"),
        (lambda x: [[0.0, 1.0]] * 3, "list, not a tensor of logits"),
    ],
)
def test_what_is_no_logits_is_refused(answer: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"Answering returned .*{message}"):
        Classifier(Answering(answer), n_classes=2).answer(IMAGES)


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError, KeyError, NameError),
        *(ZeroDivisionError, NotImplementedError, ImportError, OSError),
    ],
)
def test_a_module_that_raises_is_told_in_one_line(error: type[Exception]) -> None:
    def answer(images: Tensor) -> Tensor:
        raise error("the first line\nand more")

    with pytest.raises(ModelError, match=f"Answering raised {error.__name__}: .*the first line") as caught:
        Classifier(Answering(answer), n_classes=2).answer(IMAGES)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), KeyboardInterrupt(), UsageError("odd")])
def test_errors_that_are_not_the_modules_pass(error: BaseException) -> None:
    def answer(images: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        Classifier(Answering(answer), n_classes=2).answer(IMAGES)
    assert caught.value is error


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_a_failure_of_their_image(bad: float) -> None:
    logits = torch.tensor([[1.0, 2.0], [bad, 3.0], [-1.0, 0.5]])
    answer = Classifier(Answering(lambda x: logits), n_classes=2).answer(IMAGES)
    assert answer.failed.tolist() == [False, True, False]
    assert answer.logits.tolist() == [[1.0, 2.0], [0.0, 0.0], [-1.0, 0.5]]
    assert answer.nfe is None
    assert torch.isnan(logits[1, 0]) == (bad != bad), "the module's own tensor is left alone"


@pytest.mark.parametrize("given", [{"horizon": 1.0}, {"solver": fixed_step(step=0.5)}], ids=["horizon", "solver"])
def test_a_discrete_module_takes_no_horizon_and_no_solver(given: dict[str, Any]) -> None:
    message = "Answering has no field to integrate: it takes no horizon and no solver"
    with pytest.raises(ModelError, match=message):
        Classifier(Answering(lambda x: x), n_classes=2, **given)


@pytest.mark.parametrize("solver", ["rk4", None, 0.5, {"method": "rk4", "step": 0.5}])
def test_a_solver_of_another_type_is_refused(solver: Any) -> None:
    message = f"Growing.solver must be an odebench.Solver, not {type(solver).__name__}; make one with odebench.fixed"
    with pytest.raises(ModelError, match=message):
        Classifier(Growing(solver), n_classes=2)
    given = fixed_step(step=0.5)
    assert Classifier(Growing(solver), n_classes=2, solver=given).solver == given


@pytest.mark.parametrize("horizon", [None, "long", [1.0, 2.0], (0.0, 1.0)])
def test_a_horizon_of_another_type_is_refused(horizon: Any) -> None:
    message = f"Growing.horizon must be a number above 0, not {type(horizon).__name__}"
    with pytest.raises(ModelError, match=message):
        Classifier(Growing(fixed_step(step=0.5), horizon), n_classes=2)


@pytest.mark.parametrize("horizon", [2, 2.0, torch.tensor(2.0), torch.tensor([2.0])], ids=repr)
def test_a_horizon_is_any_number(horizon: Any) -> None:
    assert Classifier(Growing(fixed_step(step=0.5), horizon), n_classes=2).horizon == 2.0


@pytest.mark.parametrize("horizon", [0.0, -1.0, float("inf")])
def test_a_horizon_that_is_none_is_told_as_such(horizon: float) -> None:
    with pytest.raises(UsageError, match=r"horizon .* must be a finite number above 0"):
        Classifier(Growing(fixed_step(step=0.5), horizon), n_classes=2).answer(IMAGES)


@pytest.mark.parametrize(
    "solver",
    [fixed_step(step=0.05), adaptive(rtol=1e-5), adaptive(rtol=1e-5, backend="torchdiffeq")],
    ids=["rk4", "torchode", "torchdiffeq"],
)
def test_a_users_own_ode_classifier_is_integrated(solver: Solver) -> None:
    classifier = Classifier(Growing(solver, horizon=1.5), n_classes=2)
    assert classifier.is_ode
    assert classifier.parameters == 1
    answer = classifier.answer(IMAGES)
    grown = IMAGES.flatten(1).mean(1) * torch.tensor(1.5).exp()
    torch.testing.assert_close(answer.logits.detach()[:, 0], grown, rtol=1e-3, atol=1e-4)
    assert answer.nfe is not None
    assert (answer.nfe > 0).all()
    assert (answer.nfe == 120).all() == (not solver.adaptive)


def test_horizon_and_solver_given_replace_the_modules_own() -> None:
    module = Growing(fixed_step(step=0.05), horizon=1.5)
    classifier = Classifier(module, n_classes=2, horizon=0.5, solver=fixed_step("euler", step=0.5))
    answer = classifier.answer(IMAGES)
    torch.testing.assert_close(answer.logits[:, 0], 1.5 * IMAGES.flatten(1).mean(1))
    assert answer.nfe is not None
    assert answer.nfe.tolist() == [1, 1, 1]
    assert (module.horizon, module.solver) == (1.5, fixed_step(step=0.05))


def test_a_failing_solver_has_zero_logits_whatever_the_head_says() -> None:
    class Blowing(Growing):
        def field(self, t: Tensor, state: Tensor) -> Tensor:
            return 3 * self.rate * state**2

        def head(self, state: Tensor) -> Tensor:
            return torch.cat([state + 5, torch.ones_like(state)], 1)

    images = torch.stack([torch.full((1, 8, 8), value) for value in (0.1, 0.9, 0.2)])
    for solver in (adaptive(rtol=1e-4, max_steps=100), adaptive(rtol=1e-4, max_steps=100, backend="torchdiffeq")):
        answer = Classifier(Blowing(solver), n_classes=2).answer(images)
        assert answer.failed.tolist() == [False, True, False]
        assert answer.logits[1].tolist() == [0.0, 0.0]
        expected = torch.tensor([0.1 / 0.7, 0.2 / 0.4]) + 5
        torch.testing.assert_close(answer.logits.detach()[[0, 2], 0], expected, rtol=1e-3, atol=1e-3)


def test_parts_that_raise_are_told_too() -> None:
    class Broken(Growing):
        def head(self, state: Tensor) -> Tensor:
            raise KeyError("weights")

    with pytest.raises(ModelError, match="Broken raised KeyError: 'weights'"):
        Classifier(Broken(fixed_step(step=0.5)), n_classes=2).answer(IMAGES)


def test_a_module_with_some_of_the_parts_is_asked_as_a_whole() -> None:
    class Partly(Answering):
        stem = head = solver = horizon = None

    classifier = Classifier(Partly(lambda x: torch.ones(3, 2)), n_classes=2)
    assert not classifier.is_ode
    assert classifier.answer(IMAGES).nfe is None


def mixed() -> nn.Sequential:
    """A module whose parts are in different modes, as after a partial fine-tuning."""
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 2))
    module.train()
    module[1].eval()
    module[3].bias.requires_grad_(False)
    return module


def modes(module: nn.Module) -> tuple[list[bool], list[bool]]:
    return [part.training for part in module.modules()], [p.requires_grad for p in module.parameters()]


def test_frozen_gives_back_what_was() -> None:
    module = mixed()
    before = modes(module)
    classifier = Classifier(module, n_classes=2)
    assert modes(module) == before
    with classifier.frozen():
        assert modes(module) == ([False] * 5, [False] * 4)
        images = IMAGES.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(classifier.answer(images).logits.sum(), images)
        assert gradient.abs().sum() > 0, "gradients of images are still there"
    assert modes(module) == before
    with pytest.raises(ZeroDivisionError), classifier.frozen():
        raise ZeroDivisionError
    assert modes(module) == before


def test_the_answer_is_that_of_solver_and_head() -> None:
    from odebench.dataset.builtin import DIGITS

    module: Any = build(load_definition("ode").recipe(DIGITS))
    classifier = Classifier(module, n_classes=10)
    with classifier.frozen():
        answer = classifier.answer(IMAGES)
        solution = integrate(module.field, module.stem(IMAGES), horizon=module.horizon, solver=module.solver)
        assert torch.equal(answer.logits, module.head(solution.state))
        assert torch.equal(answer.logits, module(IMAGES))
    assert answer.nfe is not None
    assert torch.equal(answer.nfe, solution.nfe)


def test_a_modified_classifier_differs_in_what_is_named_alone() -> None:
    growing = Classifier(Growing(fixed_step(step=0.5)), n_classes=2, horizon=2.0, solver=fixed_step(step=0.25))
    finer = growing.modified(solver=fixed_step(step=0.125))
    assert (finer.module, finer.horizon, finer.solver) == (growing.module, 2.0, fixed_step(step=0.125))
    other = growing.modified(module=Growing(fixed_step(step=0.5)), horizon=3.0, gradient="adjoint")
    assert other.module is not growing.module
    assert (other.horizon, other.solver, other.gradient) == (3.0, fixed_step(step=0.25), "adjoint")
    assert (growing.horizon, growing.solver, growing.gradient) == (2.0, fixed_step(step=0.25), "direct")
