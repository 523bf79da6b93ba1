"""Modules as people write them: each is asked, or refused in one line, and comes back as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_model import grey_images, linear
from torch import Tensor, nn

from odebench.errors import ModelError
from odebench.model.classifier import Classifier
from odebench.model.foreign_module import as_it_was, attributes_kept, copy_of


class Wrapped(nn.Module):
    """A linear model in the manner of somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits


def asked(module: nn.Module) -> Classifier:
    return Classifier(module, n_classes=10)


def expected(images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = linear(10)(images)
    return logits


def test_to_may_return_nothing() -> None:
    class Silent(Wrapped):
        def to(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            super().to(*args, **kwargs)

    images = grey_images(3)
    assert torch.equal(asked(Silent()).answer(images).logits, expected(images))


def test_a_forward_that_takes_gradients_is_asked_with_gradients_on() -> None:
    class Hamiltonian(Wrapped):
        def forward(self, images: Tensor) -> Tensor:
            points = images if images.requires_grad else images.clone().requires_grad_()
            energy = (points**2).sum() / 2
            (moved,) = torch.autograd.grad(energy, points, create_graph=True)
            return super().forward(moved)

    class Strict(Wrapped):
        """Does not switch the gradient on by itself."""

        def forward(self, images: Tensor) -> Tensor:
            (moved,) = torch.autograd.grad((self.inner(images) ** 2).sum(), self.inner.weight, create_graph=True)
            return super().forward(images) + 0 * moved.sum()

    images = grey_images(3)
    for module in (Hamiltonian(), Strict()):
        model = asked(module)
        with torch.no_grad():
            logits = model.answer(images).logits
        assert torch.allclose(logits, expected(images))
        assert not logits.requires_grad


class _NeedsParameters(torch.autograd.Function):
    """A hand-written adjoint that differentiates for the parameter, too, and fails where that takes no gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return images * 1.0

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        images, weight = ctx.saved_tensors
        with torch.enable_grad():
            torch.autograd.grad((images.sum() * weight).sum(), weight)
        return gradients[0], None


class Adjoint(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(_NeedsParameters.apply(images, self.inner.weight))


def test_an_adjoint_that_needs_the_parameters_gets_them() -> None:
    images, model = grey_images(3), asked(Adjoint())
    with model.frozen():
        assert model.unfreeze_if_needed(images)
        points = images.clone().requires_grad_()
        torch.autograd.grad(model.answer(points).logits.sum(), points)
    honest = asked(Wrapped())
    with honest.frozen():
        assert not honest.unfreeze_if_needed(images)
        assert not any(one.requires_grad for one in honest.module.parameters())


def test_a_module_without_any_gradient_stays_frozen() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, images: Tensor) -> Tensor:
            return images * 1.0

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            raise RuntimeError("no way back")

    class Blocked(Wrapped):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(Broken.apply(images))

    for module in (Blocked(), type("Cut", (Wrapped,), {"forward": lambda self, images: self.inner(images.detach())})()):
        model = asked(module)
        with model.frozen():
            assert not model.unfreeze_if_needed(grey_images(2))
            assert not any(one.requires_grad for one in module.parameters())


def dark(images: Tensor) -> Tensor:
    return images.flatten(1).mean(1) < 0.3


class Asserting(Wrapped):
    """Fails an assertion for dark images, as a solver does whose step underflows."""

    def __init__(self, fails: Callable[[Tensor], Tensor] = dark) -> None:
        super().__init__()
        self.fails = fails

    def forward(self, images: Tensor) -> Tensor:
        assert not self.fails(images).any(), "underflow in dt"
        return super().forward(images)


def test_an_assertion_for_some_images_is_a_failed_solver() -> None:
    images = grey_images(4)
    images[1] = 0.0
    answer = asked(Asserting()).answer(images)
    assert answer.failed.tolist() == [False, True, False, False]
    assert not answer.logits[1].any()
    assert torch.allclose(answer.logits[2:], expected(images)[2:])
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(asked(Asserting()).answer(points).logits.sum(), points)
    assert not gradient[1].any()
    assert gradient[0].any()


@pytest.mark.parametrize("count", [1, 4])
def test_an_assertion_for_all_images_is_an_error_in_one_line(count: int) -> None:
    model = asked(Asserting(lambda images: torch.ones(len(images), dtype=torch.bool)))
    with pytest.raises(ModelError, match=r"^Asserting raised AssertionError: underflow in dt$"):
        model.answer(grey_images(count))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_refused_with_what_to_do(dtype: torch.dtype) -> None:
    said = r"its parameters are b?float(16|64), images are float32: hand over module\.float\(\)"
    with pytest.raises(ModelError, match=said):
        asked(Wrapped().to(dtype)).answer(grey_images(2))


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_copy_may_hold_computed_tensors() -> None:
    class Keeping(Wrapped):
        def forward(self, images: Tensor) -> Tensor:
            self.last = super().forward(images)
            return self.last

    module = Keeping()
    points = grey_images(2).requires_grad_()
    module(points)
    assert not module.last.is_leaf
    copy = copy_of(module)
    assert copy is not module
    assert torch.equal(copy.last, module.last)  # type: ignore[arg-type]
    assert not copy.last.requires_grad  # type: ignore[union-attr]
    weighted = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, 10)))
    weighted(points)
    assert torch.allclose(copy_of(weighted)(points), weighted(points))


def test_a_module_comes_back_as_it_was() -> None:
    class Stubborn(nn.BatchNorm2d):
        """Stays in training mode, so that its running statistics go on."""

        def eval(self) -> nn.Module:  # type: ignore[override]
            return self

        def train(self, mode: bool = True) -> nn.Module:  # type: ignore[override]
            return self

    module = nn.Sequential(Stubborn(1), nn.Dropout(), nn.Flatten(), nn.Linear(64, 10))
    module[3].bias.requires_grad_(False)
    module[3].weight.grad = torch.ones_like(module[3].weight)
    state = {name: one.clone() for name, one in module.state_dict().items()}
    with as_it_was(module):
        assert not module[1].training
        assert not module[3].weight.requires_grad
        module(grey_images(4))
        module[3].weight.grad = None
        assert not torch.equal(module.state_dict()["0.running_mean"], state["0.running_mean"])
    assert {name: one.tolist() for name, one in module.state_dict().items()} == {
        name: one.tolist() for name, one in state.items()
    }
    assert module[1].training
    assert module[3].weight.requires_grad
    assert not module[3].bias.requires_grad
    assert torch.equal(module[3].weight.grad, torch.ones_like(module[3].weight))


def test_buffers_that_were_given_other_tensors_come_back() -> None:
    class Counting(Wrapped):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("seen", torch.zeros(0))

        def forward(self, images: Tensor) -> Tensor:
            self.calls = self.calls + 1
            self.seen.resize_(len(images)).fill_(1.0)
            return super().forward(images)

    model = asked(Counting())
    with model.frozen():
        model.answer(grey_images(3))
    assert model.changed
    assert (float(model.module.calls), len(model.module.seen)) == (0.0, 0)  # type: ignore[arg-type]
    still = asked(Wrapped())
    with still.frozen():
        still.answer(grey_images(3))
    assert not still.changed


def test_gradients_that_were_there_are_not_added_to() -> None:
    module = Wrapped()
    module(grey_images(2)).sum().backward()
    gradients = [one.grad for one in module.parameters()]
    values = [one.clone() for one in gradients if one is not None]
    with as_it_was(module):
        for one in module.parameters():
            one.requires_grad_()
        module(grey_images(4)).sum().backward()
    assert all(one.grad is before for one, before in zip(module.parameters(), gradients, strict=True))
    assert all(torch.equal(one, before) for one, before in zip(gradients, values, strict=True))  # type: ignore[arg-type]


class Solving(Wrapped):
    """Counts, keeps and changes what solvers of libraries do: their options, a flat copy of all parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.nfe, self.options, self.steps = 0, {"t0": 0.0}, [0.25]
        self.flat = self.inner.weight.flatten() * 1.0
        self.scale = torch.ones((), requires_grad=True)
        self.seen = torch.zeros(3)

    def forward(self, images: Tensor) -> Tensor:
        self.nfe += len(images)
        self.options["t0"] = torch.zeros(())  # type: ignore[assignment]
        self.steps.append(0.5)
        self.flat = self.inner.weight.flatten() * 1.0
        self.seen += 1
        self.last = super().forward(images)
        return self.last * self.scale


def test_attributes_come_back() -> None:
    module = Solving()
    module.inner.solved = 3  # type: ignore[assignment]
    flat = module.flat
    with attributes_kept([module]):
        module(grey_images(2)).sum().backward()
        module.inner.solved = 4  # type: ignore[assignment]
        assert (module.nfe, module.steps, module.scale.grad is None) == (2, [0.25, 0.5], False)
    assert (module.nfe, module.options, module.steps, module.inner.solved) == (0, {"t0": 0.0}, [0.25], 3)
    assert module.flat is flat
    assert not module.seen.any()
    assert module.scale.grad is None
    assert not hasattr(module, "last")
