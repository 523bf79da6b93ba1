"""Check 17: the gradient that attacks follow against differences of the function which is deployed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from masked_models import SmallPixelsScaled
from small_model import SmallOde, linear
from torch import Tensor, nn
from torchdiffeq import odeint_adjoint

from odebench.dataset import load_dataset
from odebench.errors import ModelError
from odebench.evaluation.checks.adjoint import HORIZON_SHARES
from odebench.evaluation.checks.gradient import FIDELITY_IMAGES, _points, gradient_fidelity
from odebench.evaluation.checks.model import useless_gradients
from odebench.model.classifier import Classifier
from odebench.model.ode import OdeNet
from odebench.model.resnet import ResNet
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import VERDICT_BATCH, Solver, adaptive, fixed_step
from odebench.result.schema import Check

RK4 = fixed_step(step=0.5)
N = 8


@cache
def digits() -> Tensor:
    return load_dataset("digits").test.images[:N]


def ode_net(solver: Solver = RK4) -> OdeNet:
    with seeded(0):
        net = OdeNet(image_shape=(1, 8, 8), n_classes=10, channels=4, stem="conv", horizon=1.0, solver=solver)
    return net.eval()


def res_net() -> ResNet:
    with seeded(0):
        return ResNet(image_shape=(1, 8, 8), n_classes=10, widths=[4], strides=[1]).eval()


def small_ode(solver: Solver = RK4) -> SmallOde:
    with seeded(0):
        net = SmallOde()
    net.solver = solver
    return net.eval()


def fidelity(module: nn.Module, images: Tensor | None = None, **options: Any) -> Check:
    asked = Classifier(module, n_classes=10)
    with asked.frozen():
        return gradient_fidelity(
            asked, digits() if images is None else images, **{"norm": "linf", "epsilon": 0.1, **options}
        )


class Through(nn.Module):
    """A linear model that sees its images through a function, whose gradient need not be its own."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.inner = before, linear(10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(self.before(images))
        return logits


class Scaled(torch.autograd.Function):
    """The identity, with another gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, factor: Any) -> Tensor:
        ctx.factor = factor
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        if isinstance(ctx.factor, float):
            return gradient * ctx.factor, None
        turned = gradient.flatten(1) @ ctx.factor.to(gradient)
        return turned.view_as(gradient), None


ANOTHER = torch.randn(64, 64, generator=torch.Generator().manual_seed(3))


def between_levels() -> Tensor:
    """The digits, none of whose pixels lies where a rounding to 3 bits jumps."""
    return digits() * 0.97 + 0.01


def straight_through(images: Tensor) -> Tensor:
    rounded = (images * 7).round() / 7
    return images + (rounded - images).detach()


# What is honest and what is not


@pytest.mark.parametrize(
    "build",
    [
        ode_net,
        lambda: ode_net(adaptive("dopri5", rtol=1e-3)),
        lambda: small_ode(adaptive("dopri5", rtol=1e-3)),
        lambda: small_ode(adaptive("tsit5", rtol=1e-2)),
        res_net,
        lambda: linear(10),
        lambda: Through(lambda images: images.clamp(0, 1)),
    ],
    ids=["rk4", "dopri5", "small dopri5", "small tsit5", "resnet", "linear", "clipped input"],
)
def test_an_honest_gradient_is_that_of_the_model(build: Callable[[], nn.Module]) -> None:
    check = fidelity(build())
    assert (check.id, check.name, check.speaks_of) == (17, "gradient fidelity", "model")
    assert check.status == "pass"
    assert check.figure is not None
    # Where the solver chooses its steps, the function depends on the choice, and the gradient does not.
    assert check.figure > 0.97
    solver = getattr(build(), "solver", None)
    assert check.threshold == (0.9 if solver is not None and solver.adaptive else 0.95)
    assert check.evidence["images"] == check.evidence["compared"] == N
    assert check.evidence["wrong"] <= 1
    assert check.evidence["other_logits"] == 0


@pytest.mark.parametrize(
    ("before", "low", "high"),
    [
        (lambda images: Scaled.apply(images, -1.0), -1.0, -0.99),
        (lambda images: Scaled.apply(images, ANOTHER), -0.9, 0.9),
        (Tensor.detach, 0.0, 0.0),
        (straight_through, 0.0, 0.0),
    ],
    ids=["other sign", "other matrix", "detached", "straight-through"],
)
def test_the_gradient_of_another_function_is_seen(before: Callable[[Tensor], Tensor], low: float, high: float) -> None:
    check = fidelity(Through(before), between_levels())
    assert check.status == "flag"
    assert check.figure is not None
    assert low <= check.figure <= high
    assert check.evidence["compared"] == N


def test_a_scale_alone_is_no_other_direction() -> None:
    assert fidelity(Through(lambda images: Scaled.apply(images, 100.0))).figure == pytest.approx(1.0, abs=1e-3)


class LooseAdjoint(nn.Module):
    """A Neural ODE whose gradient is the adjoint's, solved as loosely as told; its rate is stiff enough to matter."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        with seeded(0):
            self.stem, self.head = nn.Linear(64, 8), nn.Linear(8, 10)
            self.rate = nn.Linear(8, 8)
        with torch.no_grad():
            self.rate.weight *= 4
        self.options = options

    def forward(self, images: Tensor) -> Tensor:
        start = self.stem(images.flatten(1))
        times = torch.tensor([0.0, 2.0], dtype=start.dtype)

        def field(t: Tensor, state: Tensor) -> Tensor:
            rate: Tensor = 3 * torch.tanh(self.rate(state))
            return rate

        found = odeint_adjoint(
            field, start, times, adjoint_params=(), method="dopri5", rtol=1e-5, atol=1e-5, **self.options
        )
        logits: Tensor = self.head(found[-1])
        return logits


def test_a_loose_adjoint_is_seen_and_a_tight_one_is_not() -> None:
    loose = fidelity(LooseAdjoint(adjoint_rtol=1e3, adjoint_atol=1e3))
    assert loose.status == "flag"
    assert loose.evidence["compared"] == N
    tight = fidelity(LooseAdjoint(adjoint_rtol=1e-5, adjoint_atol=1e-5))
    assert tight.status == "pass"
    assert tight.figure == pytest.approx(1.0, abs=1e-2)


# What cannot be tested


class Single(nn.Module):
    """A model that wants single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(10)

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.float32:
            raise TypeError("single precision, please")
        logits: Tensor = self.inner(images)
        return logits


class Captured(nn.Module):
    """A model whose weights are no parameters: they stay in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = [linear(10).weight.detach()]

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight[0].T


class Locked(nn.Module):
    """A model that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.lock = linear(10), threading.Lock()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits


class Uncopied(Locked):
    def __deepcopy__(self, memo: Any) -> Any:
        raise KeyError("no copy")


class Underflow(torch.autograd.Function):
    """The identity, whose backward pass ends as torchdiffeq's does where a step becomes too small."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise AssertionError("underflow in dt 0.0")


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (Single, "Single raised TypeError: single precision, please"),
        (Captured, "Captured raised RuntimeError: "),
        (Locked, "cannot pickle"),
        (Uncopied, "no copy"),
        (lambda: Through(Underflow.apply), "underflow in dt 0.0"),
    ],
    ids=["single precision", "captured weights", "a lock", "no copy", "backward pass"],
)
def test_a_module_that_cannot_go_to_double_precision_is_skipped(build: Callable[[], nn.Module], why: str) -> None:
    check = fidelity(build())
    assert (check.id, check.status, check.speaks_of, check.figure) == (17, "skipped", "model", None)
    assert why in check.why
    assert "\n" not in check.why


def test_a_backward_pass_that_asserts_is_an_error_of_the_model() -> None:
    asked = Classifier(Through(Underflow.apply), n_classes=10)
    with pytest.raises(
        ModelError, match=r"the gradient of Through cannot be taken: AssertionError: underflow in dt 0\.0"
    ):
        useless_gradients(asked, digits(), torch.zeros(N, dtype=torch.long))


def test_a_function_of_plateaus_has_nothing_to_compare() -> None:
    check = fidelity(Through(lambda images: (images * 7).round() / 7), between_levels())
    assert check.status == "skipped"
    assert "nothing to compare" in check.why


def test_no_image_is_no_check() -> None:
    check = fidelity(linear(10), digits()[:0])
    assert (check.status, check.why) == ("skipped", "no image is classified correctly")


# How it looks


def test_more_than_an_eighth_of_wrong_gradients_are_too_many() -> None:
    points, places = _points(digits(), "linf", 0.1, seed=0)
    assert [len(points[rows]) for rows in places.values()] == [2, 2, 2, 2]
    means = points.flatten(1).mean(1).sort().values

    class Bright(nn.Module):
        """A linear model with a wrong gradient for bright images."""

        def __init__(self, limit: Tensor) -> None:
            super().__init__()
            self.inner, self.limit = linear(10), limit

        def forward(self, images: Tensor) -> Tensor:
            bright = (images.flatten(1).mean(1) > self.limit)[:, None, None, None]
            logits: Tensor = self.inner(torch.where(bright, Scaled.apply(images, -1.0), images))
            return logits

    one, two = (fidelity(Bright(means[-1 - count : 8 - count + 1].mean())) for count in (1, 2))
    assert (one.status, one.evidence["wrong"]) == ("pass", 1)
    assert (two.status, two.evidence["wrong"]) == ("flag", 2)


@pytest.mark.parametrize("place", ["beside", "inside", "surface", "border"])
def test_a_gradient_may_be_wrong_at_one_place_alone(place: str) -> None:
    points, places = _points(digits(), "linf", 0.1, seed=0)
    there = points[places[place]]

    class There(nn.Module):
        """A linear model with a wrong gradient at the points of one place."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = linear(10)

        def forward(self, images: Tensor) -> Tensor:
            near = torch.cdist(images.flatten(1).float(), there.flatten(1)).amin(1) < 1e-2
            turned = torch.where(near[:, None, None, None], Scaled.apply(images, -1.0), images)
            logits: Tensor = self.inner(turned)
            return logits

    check = fidelity(There())
    assert check.status == "flag"
    wrong_at = check.evidence["wrong_at"]
    assert isinstance(wrong_at, dict)
    assert wrong_at[place] == 2
    assert sum(int(str(count)) for count in wrong_at.values()) == 2


@pytest.mark.parametrize("size", [1, 3, N, 100])
def test_a_gradient_may_be_wrong_in_batches_of_one_size(size: int) -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear(10)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(Scaled.apply(images, -1.0) if len(images) == size else images)
            return logits

    assert fidelity(Sized()).status == "flag"


@pytest.mark.parametrize("way", ["gradients", "fp64"])
def test_other_logits_with_gradients_or_in_fp64_flag(way: str) -> None:
    class Another(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear(10)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(images)
            other = torch.is_grad_enabled() if way == "gradients" else images.dtype == torch.float64
            return logits + 0.01 * logits.detach().flip(1) if other else logits

    check = fidelity(Another())
    assert (check.status, check.evidence["other_logits"]) == ("flag", N)


def test_the_first_images_are_looked_at() -> None:
    images = digits().repeat(5, 1, 1, 1)
    check = fidelity(linear(10), images)
    assert check.evidence["images"] == FIDELITY_IMAGES == 32


@pytest.mark.parametrize("adjoint", [False, True])
def test_the_check_leaves_no_trace(adjoint: bool) -> None:
    module = small_ode()
    module.norm = nn.BatchNorm1d(3)  # type: ignore[assignment]
    module.train()
    module.stem.eval()
    module.head.bias.requires_grad_(False)
    images, before = digits().clone(), digits().clone()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    fidelity(module, images, adjoint=adjoint)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == generators[1:]
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert (module.training, module.stem.training, module.norm.training) == (True, False, True)
    assert not module.head.bias.requires_grad
    assert module.rate[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_the_same_seed_looks_along_the_same_directions() -> None:
    module = Through(lambda images: Scaled.apply(images, ANOTHER))
    first, again, other = (fidelity(module, seed=seed).figure for seed in (0, 0, 1))
    assert first == again != other


# The adjoint's gradient beside the direct one


class LinearField(nn.Module):
    """y' = A y with A antisymmetric and strong, a rotation: its adjoint is the rotation back."""

    def __init__(self, solver: Solver) -> None:
        super().__init__()
        with seeded(0):
            self.stem_weight, self.head_weight = (nn.Parameter(torch.randn(*shape) / 4) for shape in ((64, 8), (8, 10)))
            matrix = torch.randn(8, 8)
        self.matrix = nn.Parameter(matrix - matrix.T)
        self.horizon, self.solver = 1.0, solver

    def stem(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.stem_weight

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        return state @ self.matrix

    def head(self, state: Tensor) -> Tensor:
        return state @ self.head_weight


class Bending(LinearField):
    """y' = 3 tanh(A y): the adjoint solves another field backwards than the steps went forward."""

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        return 3 * torch.tanh(state @ self.matrix)


def adjoint_cosines(module: nn.Module) -> list[Any]:
    evidence = fidelity(module, adjoint=True).evidence
    assert evidence["horizons"] == [share * 1.0 for share in HORIZON_SHARES] == [0.25, 0.5, 1.0, 2.0]
    cosines = evidence["adjoint_cosine"]
    assert isinstance(cosines, list)
    return cosines


def test_for_a_linear_field_the_adjoint_of_runge_kutta_is_exact() -> None:
    """Explicit Runge-Kutta on y' = A y is a polynomial of A, and the adjoint's the same polynomial of A transposed."""
    assert adjoint_cosines(LinearField(fixed_step(step=0.05))) == pytest.approx([1.0] * 4, abs=1e-4)
    assert adjoint_cosines(LinearField(fixed_step("euler", step=0.25))) == pytest.approx([1.0] * 4, abs=1e-4)


def test_for_a_bending_field_the_cosine_falls_with_step_and_horizon() -> None:
    fine, coarse = (adjoint_cosines(Bending(fixed_step(step=step))) for step in (0.01, 0.25))
    assert fine == pytest.approx([1.0] * 4, abs=0.02)
    assert coarse[3] < coarse[0]
    assert coarse[3] < 0.9 < fine[3]


@pytest.mark.parametrize("backend", ["torchdiffeq", "torchode"])
def test_an_adaptive_solver_has_an_adjoint_too(backend: Any) -> None:
    solver = adaptive("dopri5", rtol=1e-5, backend=backend)
    assert adjoint_cosines(Bending(solver)) == pytest.approx([1.0] * 4, abs=0.05)


def test_the_adjoint_cosine_is_that_of_torchdiffeq() -> None:
    module = Bending(fixed_step(step=0.25))
    images = digits().clamp(2e-5, 1 - 2e-5)
    for share, found in zip(HORIZON_SHARES, adjoint_cosines(module), strict=True):
        times = torch.tensor([0.0, share])
        points = images.clone().requires_grad_()
        state = odeint_adjoint(
            module.field, module.stem(points), times, adjoint_params=(), method="rk4", options={"step_size": 0.25}
        )
        last = module.head(state[-1])
        direct = Classifier(module, n_classes=10, horizon=share, solver=module.solver)
        runner_up = direct.answer(images).logits.topk(2).indices[:, 1]
        (by_adjoint,) = torch.autograd.grad(nn.functional.cross_entropy(last, runner_up, reduction="sum"), points)
        points = images.clone().requires_grad_()
        answer = direct.answer(points.clone()).logits
        (by_steps,) = torch.autograd.grad(nn.functional.cross_entropy(answer, runner_up, reduction="sum"), points)
        cosine = nn.functional.cosine_similarity(by_adjoint.flatten(1), by_steps.flatten(1)).median()
        assert found == pytest.approx(float(cosine), abs=1e-4)


def test_an_adjoint_that_fails_is_null() -> None:
    class Still(LinearField):
        """A field that no gradient passes, of which the adjoint equation cannot be written down."""

        def field(self, t: Tensor, state: Tensor) -> Tensor:
            return torch.zeros_like(state)

    assert adjoint_cosines(Still(RK4)) == [None] * 4


def test_too_many_steps_at_twice_the_horizon_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odebench.model.solver.MAX_FIXED_STEPS", 10)
    cosines = adjoint_cosines(LinearField(fixed_step(step=0.1)))
    assert cosines[3] is None
    assert None not in cosines[:3]


def test_a_model_without_a_field_has_no_adjoint() -> None:
    assert "adjoint_cosine" not in fidelity(res_net(), adjoint=True).evidence
    assert "adjoint_cosine" not in fidelity(small_ode()).evidence


@pytest.mark.parametrize("share", [0.06, 0.03])
@pytest.mark.parametrize("factor", [-1e-3, -1.0])
def test_small_pixels_count_as_much_as_others_for_attacks_that_step_along_the_sign(share: float, factor: float) -> None:
    check = fidelity(Through(lambda images: SmallPixelsScaled.apply(images, share, factor)))
    assert check.figure is not None
    assert check.figure > 0.89  # the cosine hardly sees them
    assert abs(float(str(check.evidence["along_sign"])) - 1) > 0.1
    assert check.status == "flag"


def test_a_gradient_that_leaves_small_pixels_out_is_seen() -> None:
    check = fidelity(Through(lambda images: SmallPixelsScaled.apply(images, 0.06, 0.0)))
    assert abs(float(str(check.evidence["along_sign"])) - 1) < 0.1  # neither side of the ratio holds them
    assert float(str(check.evidence["small_pixels"])) < 0.7
    assert check.status == "flag"


@pytest.mark.parametrize("verdict", [True, False])
def test_small_pixels_are_looked_at_in_each_batch_size_whose_gradient_differs(verdict: bool) -> None:
    def scaled(images: Tensor) -> Tensor:
        masked = (len(images) == VERDICT_BATCH) is verdict
        return SmallPixelsScaled.apply(images, 0.06, 0.0) if masked else images

    check = fidelity(Through(scaled))
    assert float(str(check.evidence["small_pixels"])) < 0.7
    assert check.status == "flag"


@pytest.mark.parametrize("build", [ode_net, res_net, lambda: linear(10)], ids=["rk4", "resnet", "linear"])
def test_an_honest_gradient_is_as_steep_along_its_sign_as_it_says(build: Callable[[], nn.Module]) -> None:
    evidence = fidelity(build()).evidence
    assert evidence["along_sign"] == pytest.approx(1.0, abs=0.01)
    assert evidence["small_pixels"] == pytest.approx(1.0, abs=0.01)
