"""Attacks: foolbox's own numbers, optima known in closed form, and the traps of both libraries."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import foolbox
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import grey_images, linear
from torch import Tensor, nn

import odebench.attack.foolbox as attack_module
from odebench.attack.definition import AttackDefinition, load_attack
from odebench.attack.wrapped_model import MAX_RECORDED, WrappedModel
from odebench.dataset import load_dataset
from odebench.errors import UsageError
from odebench.evaluation.verdict import Judge
from odebench.model.classifier import Classifier
from odebench.model.ode import OdeNet
from odebench.numerics.projection import ROUNDING, distance, project
from odebench.numerics.seeding import OwnNumbers, call_seed, seeded
from odebench.protocol.spec import fixed_step
from odebench.registry import load_target

CASES = {
    "fgsm-linf": ("fgsm", "linf", 0.1, {}),
    "fgsm-l2": ("fgsm", "l2", 0.8, {}),
    "pgd-linf": ("pgd", "linf", 0.1, {"steps": 5, "random_start": False}),
    "pgd-linf-random": ("pgd", "linf", 0.1, {"steps": 5, "random_start": True}),
    "pgd-l2": ("pgd", "l2", 0.8, {"steps": 5, "random_start": False}),
    "pgd-l2-random": ("pgd", "l2", 0.8, {"steps": 5, "random_start": True}),
    "cw-l2": ("cw", "l2", 1.0, {"searches": 3, "steps": 8, "step": 0.1, "initial_constant": 0.1}),
}


@cache
def digit_images(n: int = 24) -> Tensor:
    return load_dataset("digits").test.images[:n]


def ode_net() -> OdeNet:
    """A small ODE classifier, solved by rk4; its untrained head is centred on digits, so that labels differ."""
    with seeded(0), torch.no_grad():
        net = OdeNet(
            image_shape=(1, 8, 8), n_classes=10, channels=8, stem="conv", horizon=1.0, solver=fixed_step(step=0.5)
        ).eval()
        logits = net(digit_images())
        net.head[-1].bias -= logits.mean(0)
        net.head[-1].weight *= 50
        net.head[-1].bias *= 50
    return net


def frozen_surface(module: nn.Module, n_classes: int) -> WrappedModel:
    module.eval().requires_grad_(False)
    return WrappedModel(Classifier(module, n_classes=n_classes))


def predicted(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module(images).argmax(1)


def attack(
    name: str,
    surface: WrappedModel,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    epsilon: float = 0.1,
    seed: int = 7,
    fallen: Any = None,
    **parameters: Any,
) -> Tensor:
    """The registered attack, called as an evaluation calls it."""
    definition = load_attack(name)
    function: Callable[..., Tensor] = load_target(definition.function)
    full = definition.complete(parameters)
    return function(surface, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen, **full)


def plain_foolbox(
    name: str, module: nn.Module, images: Tensor, labels: Tensor, *, norm: str, epsilon: float, **parameters: Any
) -> Tensor:
    """What a user of foolbox would get from the raw module."""
    full = load_attack(name).complete(parameters)
    kind = {
        ("fgsm", "linf"): lambda: foolbox.attacks.LinfFastGradientAttack(),
        ("fgsm", "l2"): lambda: foolbox.attacks.L2FastGradientAttack(),
        ("pgd", "linf"): lambda: foolbox.attacks.LinfProjectedGradientDescentAttack(
            rel_stepsize=full["relative_step"], steps=full["steps"], random_start=full["random_start"]
        ),
        ("pgd", "l2"): lambda: foolbox.attacks.L2ProjectedGradientDescentAttack(
            rel_stepsize=full["relative_step"], steps=full["steps"], random_start=full["random_start"]
        ),
        ("cw", "l2"): lambda: foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=full["searches"],
            steps=full["steps"],
            stepsize=full["step"],
            initial_const=full["initial_constant"],
            abort_early=False,
        ),
    }[name, norm]()
    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        raw, _, _ = kind(model, images, labels, epsilons=epsilon)
    return raw.detach()


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b): every optimum is known."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, images: Tensor) -> Tensor:
        margin = (images * self.weight).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def linear_model(seed: int = 0, *, scale: float = 1.0) -> Linear:
    weight = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Linear(weight * scale / weight.norm(), bias=-float(weight.sum() * scale / weight.norm()) / 2)


def interior_images(n: int, seed: int = 1) -> Tensor:
    return 0.5 + 0.1 * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


# foolbox's own numbers


@pytest.mark.parametrize("case", CASES)
def test_candidates_are_those_of_foolbox_bit_for_bit(case: str) -> None:
    name, norm, epsilon, parameters = CASES[case]
    net, images = ode_net(), digit_images()
    labels = predicted(net, images)
    expected = plain_foolbox(name, net, images, labels, norm=norm, epsilon=epsilon, **parameters)
    if name == "cw":  # an unsolved image is black in foolbox, and as it was here
        unsolved = (expected == 0).flatten(1).all(1)
        assert not unsolved.all()
        expected[unsolved] = images[unsolved]
    found = attack(name, frozen_surface(net, 10), images, labels, norm=norm, epsilon=epsilon, **parameters)
    assert torch.equal(found, expected)
    assert (found != images).flatten(1).any(1).sum() > len(images) / 2


@pytest.mark.parametrize("case", CASES)
def test_refusing_every_fall_is_running_to_the_end(case: str) -> None:
    name, norm, epsilon, parameters = CASES[case]
    net, images = ode_net(), digit_images()
    labels = predicted(net, images)
    surface = frozen_surface(net, 10)
    end = attack(name, surface, images, labels, norm=norm, epsilon=epsilon, **parameters)
    refused: list[int] = []

    def refuse(rows: Tensor, candidates: Tensor) -> Tensor:
        refused.extend(rows.tolist())
        return torch.zeros(len(rows), dtype=torch.bool)

    found = attack(name, surface, images, labels, norm=norm, epsilon=epsilon, fallen=refuse, **parameters)
    assert refused or name == "fgsm", "no suspicion was raised, so nothing was shown"
    torch.testing.assert_close(found, end, rtol=0, atol=1e-5)


def test_a_seed_is_a_random_start_and_other_seeds_are_others() -> None:
    net, images = ode_net(), digit_images()
    labels, surface = predicted(net, images), frozen_surface(net, 10)
    first, again, other = (attack("pgd", surface, images, labels, seed=seed, steps=2) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("case", CASES)
def test_global_generators_go_on_as_before(case: str) -> None:
    name, norm, epsilon, parameters = CASES[case]
    model, images = linear_model(), interior_images(4)
    labels, surface = predicted(model, images), frozen_surface(model, 2)
    candidates = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)
        random.seed(disturbance)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        for fallen in (None, lambda rows, _: torch.zeros(len(rows), dtype=torch.bool)):
            candidates.append(
                attack(name, surface, images, labels, norm=norm, epsilon=epsilon, fallen=fallen, **parameters)
            )
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.random.get_state()[1].tolist() == states[1]
        assert random.getstate() == states[2]
    assert torch.equal(candidates[0], candidates[2])
    assert torch.equal(candidates[1], candidates[3])


def test_generators_are_given_back_when_an_attack_raises() -> None:
    states = torch.get_rng_state(), random.getstate()

    def fail() -> None:
        torch.rand(3)
        random.random()
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), seeded(1):
        fail()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_the_seed_of_a_call_is_the_documented_digest() -> None:
    expected = int.from_bytes(hashlib.sha256(b"5/3/pgd/0.1").digest()[:4], "big")
    assert call_seed(5, chunk=3, stage="pgd", epsilon=0.1) == expected
    others = {
        call_seed(6, chunk=3, stage="pgd", epsilon=0.1),
        call_seed(5, chunk=4, stage="pgd", epsilon=0.1),
        call_seed(5, chunk=3, stage="fgsm", epsilon=0.1),
        call_seed(5, chunk=3, stage="pgd", epsilon=0.2),
    }
    assert len(others | {expected}) == 5


# Optima in closed form


@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_ends_at_the_optimal_corner_of_a_linear_model(random_start: bool) -> None:
    model, images, epsilon = linear_model(), torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(2)), 0.1
    labels = predicted(model, images)
    toward = torch.where(labels == 1, -1.0, 1.0)[:, None, None, None] * model.weight.detach().sign()
    corner = (images + epsilon * toward).clamp(0, 1)
    found = attack(
        "pgd", frozen_surface(model, 2), images, labels, epsilon=epsilon, steps=20, random_start=random_start
    )
    torch.testing.assert_close(found, corner, rtol=0, atol=1e-7)


def test_the_step_of_foolbox_would_not_cross_the_ball() -> None:
    model, images = linear_model(), interior_images(16)
    labels = predicted(model, images)
    toward = torch.where(labels == 1, -1.0, 1.0)[:, None, None, None] * model.weight.detach().sign()
    corner = (images + 0.1 * toward).clamp(0, 1)
    found = attack("pgd", frozen_surface(model, 2), images, labels, steps=20, relative_step=1 / 30)
    assert 0.25 < ((found - corner).abs() < 1e-6).float().mean() < 0.45


@pytest.mark.parametrize("steps", [1, 20, 50])
def test_default_steps_cover_two_and_a_half_epsilon(steps: int) -> None:
    parameters = load_attack("pgd").complete({"steps": steps})
    assert float(str(parameters["relative_step"])) * steps == pytest.approx(2.5)
    assert load_attack("pgd").gradients(parameters) == steps


def test_a_given_step_is_taken_as_it_is() -> None:
    model, images = linear_model(), interior_images(4)
    labels = predicted(model, images)
    found = attack(
        "pgd", frozen_surface(model, 2), images, labels, steps=1, relative_step=0.25, random_start=False, epsilon=0.2
    )
    torch.testing.assert_close((found - images).abs(), torch.full_like(images, 0.05), rtol=0, atol=1e-6)


def test_fgsm_steps_along_the_gradient_of_its_norm() -> None:
    model, images = linear_model(), interior_images(8)
    labels, surface = predicted(model, images), frozen_surface(model, 2)
    toward = torch.where(labels == 1, -1.0, 1.0)[:, None, None, None] * model.weight.detach()
    linf = attack("fgsm", surface, images, labels, norm="linf", epsilon=0.05)
    torch.testing.assert_close(linf, images + 0.05 * toward.sign(), rtol=0, atol=1e-6)
    l2 = attack("fgsm", surface, images, labels, norm="l2", epsilon=0.3)
    torch.testing.assert_close(l2, images + 0.3 * toward / model.weight.norm().item(), rtol=0, atol=1e-5)


def test_cw_finds_the_distance_to_the_hyperplane() -> None:
    model, images = linear_model(scale=3.0), interior_images(24)
    closed = ((images * model.weight).flatten(1).sum(1) + model.bias).abs().detach() / model.weight.norm().item()
    images, closed = images[closed > 0.05], closed[closed > 0.05]  # the search moves in steps of about 0.01
    assert len(images) >= 12
    labels = predicted(model, images)
    found = attack("cw", frozen_surface(model, 2), images, labels, norm="l2", epsilon=1.0)
    lengths = distance(images, found, norm="l2")
    assert (predicted(model, found) != labels).all()
    assert (lengths >= closed * (1 - 1e-4)).all()
    assert (lengths <= closed * 1.05).all()


@given(
    st.sampled_from(sorted(CASES)),
    st.floats(0.01, 1.0),
    st.integers(0, 2**31),
    st.lists(st.floats(0, 1, width=32), min_size=64, max_size=64),
)
@settings(max_examples=25, deadline=None)
def test_judged_candidates_lie_within_epsilon_and_the_range(
    case: str, epsilon: float, seed: int, pixels: list[float]
) -> None:
    name, norm, _, parameters = CASES[case]
    model = linear_model()
    images = torch.stack([torch.tensor(pixels).reshape(1, 8, 8), torch.full((1, 8, 8), 0.5)])
    labels, surface = predicted(model, images), frozen_surface(model, 2)
    found = attack(name, surface, images, labels, norm=norm, epsilon=epsilon, seed=seed, **parameters)
    judge = Judge(surface.classifier)
    verdict = judge.candidates(
        images, labels, found, norm=norm, epsilon=epsilon, fixed_budget=load_attack(name).fixed_budget
    )
    assert (distance(images, verdict.judged, norm=norm) <= epsilon + ROUNDING).all()
    assert ((verdict.judged >= 0) & (verdict.judged <= 1)).all()
    assert not verdict.invalid.any()


# Traps


@pytest.mark.parametrize("case", CASES)
def test_a_frozen_model_gets_no_parameter_gradients(case: str) -> None:
    name, norm, epsilon, parameters = CASES[case]
    net, images = ode_net(), digit_images(4)
    labels = predicted(net, images)
    classifier = Classifier(net, n_classes=10)
    with classifier.frozen():
        attack(name, WrappedModel(classifier), images, labels, norm=norm, epsilon=epsilon, **parameters)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_foolbox_is_told_the_device_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def spy(*arguments: Any, **options: Any) -> Any:
        asked.append(options["device"])
        return foolbox.PyTorchModel(*arguments, **options)

    monkeypatch.setattr(attack_module, "PyTorchModel", spy)
    model, images = linear_model(), interior_images(2)
    attack("fgsm", frozen_surface(model, 2), images, predicted(model, images))
    assert asked == [images.device]
    assert model.weight.device == images.device


class Unmovable(nn.Module):
    """Always class 0, except of black, which it calls class 1."""

    def forward(self, images: Tensor) -> Tensor:
        black = images.flatten(1).amax(1) < 1e-3
        margin = torch.where(black, 5.0, -5.0) + 0 * images.flatten(1).sum(1)
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def test_cw_returns_unsolved_images_as_they_were() -> None:
    images = digit_images(5)
    labels = torch.zeros(5, dtype=torch.long)
    surface = frozen_surface(Unmovable(), 2)
    assert predicted(Unmovable().eval(), torch.zeros_like(images)).tolist() == [1] * 5, "black must be mislabelled"
    parameters = {"searches": 2, "steps": 5}
    raw = plain_foolbox("cw", Unmovable().eval(), images, labels, norm="l2", epsilon=50.0, **parameters)
    assert (raw == 0).all(), "foolbox returns unsolved images black"
    for fallen in (None, lambda rows, _: torch.ones(len(rows), dtype=torch.bool)):
        found = attack("cw", surface, images, labels, norm="l2", epsilon=50.0, fallen=fallen, **parameters)
        assert torch.equal(found, images)
        verdict = Judge(surface.classifier).candidates(
            images, labels, found, norm="l2", epsilon=50.0, fixed_budget=False
        )
        assert "".join(verdict.letters) == "rrrrr"


def test_cw_of_an_image_does_not_depend_on_its_neighbours() -> None:
    net, images = ode_net(), digit_images()
    labels, surface = predicted(net, images), frozen_surface(net, 10)
    parameters = CASES["cw-l2"][3]
    near, far = [0, 1, 2, 3], [0, 9, 10, 11]
    first, second = (
        attack("cw", surface, images[rows], labels[rows], norm="l2", epsilon=1.0, **parameters) for rows in (near, far)
    )
    assert not torch.equal(first[0], images[0])
    assert torch.equal(first[0], second[0])


def test_pgd_of_an_image_does_not_depend_on_its_neighbours() -> None:
    net, images = ode_net(), digit_images()
    labels, surface = predicted(net, images), frozen_surface(net, 10)
    first, second = (
        attack("pgd", surface, images[rows], labels[rows], steps=4) for rows in ([0, 1, 2, 3], [0, 9, 10, 11])
    )
    assert torch.equal(first[0], second[0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stopped", [False, True])
def test_int32_labels_are_labels(case: str, stopped: bool) -> None:
    name, norm, epsilon, parameters = CASES[case]
    model, images = linear_model(), interior_images(4)
    labels, surface = predicted(model, images), frozen_surface(model, 2)
    fallen = (lambda rows, _: torch.ones(len(rows), dtype=torch.bool)) if stopped else None
    long, short = (
        attack(name, surface, images, kind, norm=norm, epsilon=epsilon, fallen=fallen, **parameters)
        for kind in (labels, labels.int())
    )
    assert torch.equal(long, short)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stopped", [False, True])
def test_attacks_leave_the_images_alone(case: str, stopped: bool) -> None:
    name, norm, epsilon, parameters = CASES[case]
    model, images = linear_model(), interior_images(4)
    labels, surface = predicted(model, images), frozen_surface(model, 2)
    before = images.clone()
    fallen = (lambda rows, _: torch.zeros(len(rows), dtype=torch.bool)) if stopped else None
    found = attack(name, surface, images, labels, norm=norm, epsilon=epsilon, fallen=fallen, **parameters)
    found.add_(1)
    assert torch.equal(images, before)


class InPlace(nn.Module):
    """A linear model that scales its input where it lies, with a twin that does not."""

    def __init__(self, inner: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        self.inner, self.in_place = inner, in_place

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images.mul_(1.1) if self.in_place else images * 1.1)


@pytest.mark.parametrize("case", CASES)
def test_a_model_that_changes_its_input_changes_no_image(case: str) -> None:
    name, norm, epsilon, parameters = CASES[case]
    images = interior_images(4)
    before = images.clone()
    labels = predicted(InPlace(linear_model(), in_place=False), images)
    found, honest = (
        attack(
            name,
            frozen_surface(InPlace(linear_model(), in_place=in_place), 2),
            images,
            labels,
            norm=norm,
            epsilon=epsilon,
            **parameters,
        )
        for in_place in (True, False)
    )
    assert torch.equal(images, before)
    assert torch.equal(found, honest)


class Brittle(nn.Module):
    """NaN for the images whose first pixel is above 0.9, the others as they are."""

    def forward(self, images: Tensor) -> Tensor:
        broken = images[:, 0, 0, 0] > 0.9
        return images * torch.where(broken, torch.nan, 1.0)[:, None, None, None]


def brittle_linear() -> nn.Module:
    return nn.Sequential(Brittle(), linear_model())


def brittle_ode() -> OdeNet:
    net = ode_net()
    net.stem.insert(0, Brittle())
    return net


def gradient_of(surface: WrappedModel, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    points = points.clone().requires_grad_()
    logits = surface(points)
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    return logits.detach(), torch.autograd.grad(loss, points)[0]


@pytest.mark.parametrize(("build", "n_classes"), [(brittle_linear, 2), (brittle_ode, 10)])
def test_failing_rows_are_recorded_and_disturb_nobody(build: Callable[[], nn.Module], n_classes: int) -> None:
    net, healthy = build(), interior_images(6)
    surface = frozen_surface(net, n_classes)
    labels = predicted(net, healthy)
    logits, gradient = gradient_of(surface, healthy, labels)
    assert surface.failures == []
    assert (gradient != 0).flatten(1).any(1).all()
    broken = healthy.clone()
    broken[[1, 4], 0, 0, 0] = 0.95
    mixed_logits, mixed = gradient_of(surface, broken, labels)
    rest = [0, 2, 3, 5]
    assert torch.equal(torch.stack(surface.failures), broken[[1, 4]])
    assert (mixed_logits[[1, 4]] == 0).all()
    assert (mixed[[1, 4]] == 0).all()
    assert torch.equal(mixed_logits[rest], logits[rest])
    assert torch.equal(mixed[rest], gradient[rest])
    assert (surface.forward_images, surface.backward_images) == (12, 12)


class Foggy(nn.Module):
    """A small network that sees its images through noise, each pass through other noise; it fails at bright ones."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(0):
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 5))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images + 0.3 * torch.randn_like(images))
        return torch.where((images[:, 0, 0, 0] > 0.94)[:, None], torch.nan, logits)


@pytest.mark.parametrize("passes", [1, 20])
def test_a_surface_over_passes_has_the_mean_logits_and_the_mean_gradient(passes: int) -> None:
    classifier, images = Classifier(Foggy(), n_classes=5), interior_images(4)
    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(5))
    surface = WrappedModel(classifier, passes=passes)
    points = images.clone().requires_grad_()
    with seeded(3):
        logits = surface(points)
    (gradient,) = torch.autograd.grad((weights * logits).sum(), points)
    singles, gradients, numbers = [], [], OwnNumbers()
    with seeded(3):
        for _ in range(passes):
            points = images.clone().requires_grad_()
            with numbers.drawn():
                singles.append(classifier.answer(points.clone()).logits)
            gradients.append(torch.autograd.grad((weights * singles[-1]).sum(), points)[0])
    torch.testing.assert_close(logits, torch.stack(singles).mean(0))
    torch.testing.assert_close(gradient, torch.stack(gradients).mean(0))
    if passes > 1:
        assert not torch.allclose(gradient, gradients[0], rtol=0.1)
    assert (surface.forward_images, surface.backward_images) == (4 * passes, 4 * passes)


def test_a_surface_over_passes_records_each_failure_and_bounds_them() -> None:
    surface = WrappedModel(Classifier(Foggy(), n_classes=5), passes=20)
    images = interior_images(4)
    images[1, 0, 0, 0] = 0.95
    logits, gradient = gradient_of(surface, images, torch.zeros(4, dtype=torch.long))
    assert torch.equal(torch.stack(surface.failures), images[[1] * 20])
    assert (logits[1] == 0).all()
    assert (gradient[1] == 0).all()
    assert (gradient[[0, 2, 3]] != 0).flatten(1).any(1).all()


def test_recorded_failures_do_not_grow_without_end() -> None:
    surface = frozen_surface(brittle_linear(), 2)
    points = torch.full((300, 1, 8, 8), 0.95)
    for _ in range(10):
        surface(points)
    assert MAX_RECORDED <= len(surface.failures) < MAX_RECORDED + 300


def test_an_image_at_which_the_model_fails_stays_in_the_ball() -> None:
    model, images = brittle_linear(), interior_images(4)
    images[:, 0, 0, 0] = 0.88
    labels, surface = predicted(model, images), frozen_surface(model, 2)
    found = attack("pgd", surface, images, labels, steps=10)
    assert surface.failures
    assert found.isfinite().all()
    assert (distance(images, found, norm="linf") <= 0.1 + ROUNDING).all()


class Detached(nn.Module):
    """A linear model through which no gradient flows."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.inner(images)


@pytest.mark.parametrize("case", CASES)
def test_a_model_without_a_gradient_has_a_zero_one(case: str) -> None:
    name, norm, epsilon, parameters = CASES[case]
    model, images = linear_model(), interior_images(4)
    labels, surface = predicted(model, images), frozen_surface(Detached(model), 2)
    found = attack(name, surface, images, labels, norm=norm, epsilon=epsilon, **parameters)
    assert found.isfinite().all()
    if not parameters.get("random_start"):
        torch.testing.assert_close(found, images, rtol=0, atol=1e-6)


def test_no_attack_warns(recwarn: pytest.WarningsRecorder) -> None:
    model, images = linear_model(), interior_images(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack("pgd", frozen_surface(model, 2), images, predicted(model, images), steps=1)
    assert not recwarn.list


# Definitions


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("pgd", {"step": 3}, r"pgd has no parameter step; known: steps, random_start, relative_step"),
        ("fgsm", {"steps": 3}, r"fgsm has no parameter steps; known: none"),
        ("pgd", {"steps": True}, r"pgd: steps must be a whole number of at least 1, not True"),
        ("pgd", {"steps": 0}, r"pgd: steps must be a whole number of at least 1, not 0"),
        ("pgd", {"steps": -5}, r"pgd: steps must be a whole number of at least 1, not -5"),
        ("pgd", {"steps": 2.0}, r"pgd: steps must be a whole number of at least 1, not 2.0"),
        ("pgd", {"steps": "20"}, r"pgd: steps must be a whole number of at least 1, not '20'"),
        ("pgd", {"random_start": 1}, r"pgd: random_start must be true or false, not 1"),
        ("pgd", {"relative_step": 0}, r"pgd: relative_step must be a finite number above 0, not 0"),
        ("pgd", {"relative_step": -0.1}, r"pgd: relative_step must be a finite number above 0, not -0.1"),
        ("pgd", {"relative_step": True}, r"pgd: relative_step must be a finite number above 0, not True"),
        ("pgd", {"relative_step": float("inf")}, r"relative_step must be a finite number above 0, not inf"),
        ("pgd", {"relative_step": float("nan")}, r"relative_step must be a finite number above 0, not nan"),
        ("cw", {"step": "small"}, r"cw: step must be a finite number above 0, not 'small'"),
    ],
)
def test_parameters_that_cannot_be(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_attack(name).complete(given)


def test_parameters_are_completed_and_not_shared() -> None:
    assert load_attack("pgd").complete() == {"steps": 20, "random_start": True, "relative_step": 0.125}
    assert load_attack("pgd").complete({"steps": 50, "random_start": False}) == {
        "steps": 50,
        "random_start": False,
        "relative_step": 0.05,
    }
    assert load_attack("fgsm").complete() == {}
    assert load_attack("cw").complete({"step": 1}) == {
        "searches": 6,
        "steps": 200,
        "step": 1,
        "initial_constant": 1e-3,
    }
    load_attack("cw").complete()["steps"] = 1
    assert load_attack("cw").complete()["steps"] == 200
    assert load_attack("cw").gradients(load_attack("cw").complete()) == 1200


def test_a_text_may_be_a_parameter() -> None:
    definition = AttackDefinition("mine", "somewhere:attack", ("linf",), {"loss": "ce"})
    assert definition.complete({"loss": "dlr"}) == {"loss": "dlr"}
    with pytest.raises(UsageError, match="mine: loss must be a text, not 3"):
        definition.complete({"loss": 3})


def test_norms_are_those_of_the_attack() -> None:
    assert [load_attack(name).norm(None) for name in ("fgsm", "pgd", "cw")] == ["linf", "linf", "l2"]
    assert load_attack("pgd").norm("l2") == "l2"
    with pytest.raises(UsageError, match="cw attacks in l2, not in linf"):
        load_attack("cw").norm("linf")
    with pytest.raises(UsageError, match="pgd attacks in linf and l2, not in l1"):
        load_attack("pgd").norm("l1")


def test_an_unknown_attack_has_a_nearest_match() -> None:
    with pytest.raises(
        UsageError, match=r"unknown attack 'pdg'; did you mean 'pgd'\? known: .*, cw, .*, fgsm, .*, pgd, "
    ):
        load_attack("pdg")


@pytest.mark.parametrize("name", ["pgd", "apgd-ce"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_goes_on_from_where_it_is_told(name: str, norm: str) -> None:
    asked: list[Tensor] = []

    class Watched(WrappedModel):
        def forward(self, images: Tensor) -> Tensor:
            asked.append(images.detach().clone())
            return super().forward(images)

    model, images = linear(3), grey_images(6)
    labels = predicted(model, images)
    start = project(images, images + 0.05, norm=norm, epsilon=0.03)
    surface = Watched(Classifier(model.requires_grad_(False), n_classes=3))
    call = load_target(load_attack(name).function)
    parameters = load_attack(name).complete({"steps": 2})
    call(surface, images, labels, norm=norm, epsilon=0.03, seed=0, start=start, **parameters)
    assert torch.allclose(asked[0], start, atol=1e-6)
    asked.clear()
    call(surface, images, labels, norm=norm, epsilon=0.03, seed=0, **parameters)
    assert not torch.allclose(asked[0], start, atol=1e-3)
