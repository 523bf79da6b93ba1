"""Checks: each fires on a model or setting made for it, and stays silent on honest ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from odebench.attack.definition import load_attack
from odebench.dataset import load_dataset
from odebench.errors import ModelError
from odebench.evaluation.checks.model import (
    batch_independence,
    determinism,
    gradient_availability,
    logits_not_probabilities,
    mean_batch_independence,
    useless_gradients,
)
from odebench.evaluation.checks.reach import reach
from odebench.evaluation.checks.rule import count_check, skipped, threshold_check
from odebench.evaluation.checks.solver import finer, solver_failure, solver_gap
from odebench.evaluation.verdict import Judge
from odebench.model.classifier import Classifier
from odebench.model.ode import OdeNet
from odebench.model.resnet import ResNet
from odebench.numerics.seeding import seeded
from odebench.numerics.statistics import wilson_lower
from odebench.protocol.spec import Solver, adaptive, fixed_step
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

N = 100


@cache
def digits() -> Tensor:
    return load_dataset("digits").test.images[:N]


def ode_net(solver: Solver | None = None) -> OdeNet:
    with seeded(0):
        return OdeNet(
            image_shape=(1, 8, 8),
            n_classes=10,
            channels=8,
            stem="conv",
            horizon=1.0,
            solver=solver or fixed_step(step=0.5),
        ).eval()


def res_net() -> ResNet:
    with seeded(0):
        return ResNet(image_shape=(1, 8, 8), n_classes=10, widths=[8], strides=[1]).eval()


def linear_net() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


HONEST: dict[str, Callable[[], nn.Module]] = {
    "rk4": ode_net,
    "torchode": lambda: ode_net(adaptive("dopri5", rtol=1e-3)),
    "resnet": res_net,
}


class Wrapped(nn.Module):
    """A module whose input or logits are changed on the way."""

    def __init__(
        self,
        inner: nn.Module,
        *,
        before: Callable[[Tensor], Tensor] = lambda images: images,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, before, after
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.inner(self.before(images)))


def classifier(module: nn.Module) -> Classifier:
    return Classifier(module, n_classes=10)


def labels_of(module: nn.Module) -> Tensor:
    return Judge(classifier(module)).answer(digits()).logits.argmax(1)


def check_gradient(module: nn.Module) -> Check:
    images, labels = digits(), labels_of(module)
    return gradient_availability(useless_gradients(classifier(module), images, labels), len(images))


@pytest.mark.parametrize("build", HONEST.values(), ids=HONEST)
def test_honest_models_raise_no_flag(build: Callable[[], nn.Module]) -> None:
    module = build()
    asked, images, labels = classifier(module), digits(), labels_of(module)
    answer = Judge(asked).answer(images)
    checks = [
        check_gradient(module),
        determinism(asked, images, alone=False),
        logits_not_probabilities(answer.logits),
        batch_independence(asked, images, labels, norm="linf", epsilon=0.1),
        solver_failure("".join(Judge(asked).clean(images, labels)), solver=asked.solver),
    ]
    assert [(check.id, check.status, check.speaks_of) for check in checks] == [
        (number, "pass", "model") for number in (1, 2, 3, 15, 18)
    ]
    assert [check.k for check in checks] == [0, None, None, 0, 0]


# 1 gradient availability


def test_a_rounded_input_has_no_gradient() -> None:
    check = check_gradient(Wrapped(ode_net(), before=lambda images: (images * 7).round() / 7))
    assert (check.status, check.k, check.n) == ("flag", N, N)
    assert check.id == 1


def test_saturated_logits_have_no_gradient() -> None:
    honest, scaled = linear_net(), Wrapped(linear_net(), after=lambda logits: logits * 1e4)
    assert torch.equal(labels_of(honest), labels_of(scaled))
    check = check_gradient(scaled)
    assert check.status == "flag"
    assert check.k is not None
    assert 50 < check.k <= N
    assert check_gradient(honest).k == 0


def cut_off(logits: Tensor) -> Tensor:
    return logits.detach() + torch.zeros(1, requires_grad=True)


@pytest.mark.parametrize("after", [Tensor.detach, cut_off])
def test_a_detached_model_has_no_gradient(after: Callable[[Tensor], Tensor]) -> None:
    assert check_gradient(Wrapped(linear_net(), after=after)).k == N


def test_gradients_that_are_not_finite_are_useless() -> None:
    def corner(images: Tensor) -> Tensor:
        # sqrt has an infinite slope at zero: for the images whose first pixel is made zero
        first = images[:, :, :1, :1] * (torch.arange(len(images)) % 4 > 0).view(-1, 1, 1, 1)
        return images + first.sqrt()

    images = torch.full((N, 1, 8, 8), 0.5)
    module = Wrapped(linear_net(), before=corner)
    assert Judge(classifier(module)).answer(images).failed.sum() == 0
    k = useless_gradients(classifier(module), images, torch.zeros(N, dtype=torch.long))
    assert k == N // 4


class Unbackable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise RuntimeError("no derivative here")


def test_a_backward_pass_that_raises_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match="the gradient of Wrapped cannot be taken: RuntimeError: no derivative here"):
        check_gradient(Wrapped(linear_net(), before=Unbackable.apply))


def test_the_gradient_check_leaves_no_trace() -> None:
    module = ode_net()
    images, before = digits().clone(), digits().clone()
    useless_gradients(classifier(module), images, labels_of(module))
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())


# 2 determinism


def test_noise_in_the_forward_pass_is_seen() -> None:
    check = determinism(
        classifier(Wrapped(ode_net(), before=lambda images: images + 0.1 * torch.randn_like(images))),
        digits(),
        alone=False,
    )
    assert (check.id, check.status) == (2, "flag")
    assert check.figure is not None
    assert check.figure > 1e-4


@pytest.mark.parametrize(("noise", "status"), [(1e-6, "pass"), (1e-2, "flag")])
def test_noise_is_measured_against_the_largest_logit(noise: float, status: str) -> None:
    def shaken(logits: Tensor) -> Tensor:
        return logits + noise * logits.abs().amax(1, keepdim=True) * torch.rand_like(logits)

    check = determinism(classifier(Wrapped(linear_net(), after=shaken)), digits(), alone=False)
    assert check.status == status
    assert check.figure == pytest.approx(noise, rel=0.2)


def test_one_label_that_changes_is_enough() -> None:
    calls = iter(range(10_000))

    def change(logits: Tensor) -> Tensor:
        turn = next(calls) % 2
        return torch.cat([logits[:1].roll(turn, 1), logits[1:]])

    check = determinism(classifier(Wrapped(linear_net(), after=change)), digits(), alone=False)
    assert check.status == "flag"
    assert check.evidence["labels_changed"] == 1


def test_whether_the_seed_decides_is_said() -> None:
    own = torch.Generator().manual_seed(3)

    def shaken(generator: torch.Generator | None) -> Callable[[Tensor], Tensor]:
        return lambda images: images + 0.1 * torch.rand(images.shape, generator=generator)

    for generator, seeded_too in ((None, True), (own, False)):
        check = determinism(classifier(Wrapped(linear_net(), before=shaken(generator))), digits(), alone=False)
        assert (check.status, check.evidence["seeded"]) == ("flag", seeded_too)
    assert determinism(classifier(linear_net()), digits(), alone=False).evidence["seeded"]


def test_few_values_that_no_seed_reaches_are_told_although_they_repeat_by_chance() -> None:
    """With two values, one repetition would be equal every other time."""
    for seed in range(6):
        dice = random.Random(seed)
        asked = classifier(Wrapped(linear_net(), after=lambda logits, dice=dice: logits + dice.randrange(2)))
        check = determinism(asked, digits(), alone=False)
        assert (check.status, check.evidence["seeded"]) == ("flag", False)
    tossed = Wrapped(linear_net(), after=lambda logits: logits + torch.randint(2, (1,)))
    check = determinism(classifier(tossed), digits(), alone=False)
    assert (check.status, check.evidence["seeded"]) == ("flag", True)


def test_determinism_leaves_the_generators_alone() -> None:
    state = torch.get_rng_state()
    determinism(classifier(linear_net()), digits(), alone=False)
    assert torch.equal(torch.get_rng_state(), state)


# 3 logits, not probabilities


def test_probabilities_are_seen() -> None:
    module = Wrapped(ode_net(), after=lambda logits: logits.softmax(1))
    check = logits_not_probabilities(Judge(classifier(module)).answer(digits()).logits)
    assert (check.id, check.status, check.figure) == (3, "flag", 1.0)


@pytest.mark.parametrize("after", [lambda x: x.log_softmax(1), lambda x: x.softmax(1) * 2, lambda x: x.sigmoid()])
def test_other_outputs_are_no_probabilities(after: Callable[[Tensor], Tensor]) -> None:
    module = Wrapped(ode_net(), after=after)
    assert logits_not_probabilities(Judge(classifier(module)).answer(digits()).logits).status == "pass"


def test_failed_rows_do_not_hide_probabilities() -> None:
    logits = torch.rand(10, 4).softmax(1)
    logits[3] = 0
    assert logits_not_probabilities(logits).status == "flag"
    assert logits_not_probabilities(torch.zeros(5, 4)).status == "pass"
    logits[4] = torch.tensor([2.0, -1.0, 0.0, 0.0])
    check = logits_not_probabilities(logits)
    assert check.status == "pass"
    assert check.figure == pytest.approx(8 / 9)


# 14 reach


@pytest.mark.parametrize(
    ("given", "status", "figure", "threshold"),
    [
        ({}, "pass", 2.5, 2.0),
        ({"steps": 100}, "pass", 2.5, 2.0),
        ({"steps": 20, "relative_step": 0.01}, "flag", 0.2, 2.0),
        ({"steps": 40, "relative_step": 1 / 30}, "flag", 40 / 30, 2.0),
        ({"steps": 20, "relative_step": 0.1}, "pass", 2.0, 2.0),
        ({"steps": 20, "relative_step": 0.0999}, "flag", 1.998, 2.0),
        ({"steps": 10, "relative_step": 0.1, "random_start": False}, "pass", 1.0, 1.0),
        ({"steps": 10, "relative_step": 0.09, "random_start": False}, "flag", 0.9, 1.0),
    ],
)
def test_steps_that_cannot_cross_the_ball(given: dict[str, Any], status: str, figure: float, threshold: float) -> None:
    definition = load_attack("pgd")
    check = reach(definition, definition.complete(given))
    assert (check.id, check.status, check.threshold, check.speaks_of) == (14, status, threshold, "settings")
    assert check.figure == pytest.approx(figure)


@pytest.mark.parametrize(("name", "why"), [("fgsm", "no steps of a fixed length"), ("cw", "minimises the norm")])
def test_reach_is_skipped_where_there_are_no_such_steps(name: str, why: str) -> None:
    definition = load_attack(name)
    check = reach(definition, definition.complete())
    assert check.status == "skipped"
    assert why in check.why


# 15 batch independence


class BatchMean(nn.Module):
    """A linear model that subtracts the mean of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear_net()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images - images.mean(0, keepdim=True))


def batch_norm() -> nn.Module:
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(144, 10)
        ).eval()


@pytest.mark.parametrize("build", [BatchMean, batch_norm])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_models_that_look_at_the_batch_are_seen(build: Callable[[], nn.Module], norm: str) -> None:
    module = build().eval()
    asked = classifier(module)
    labels = Judge(asked).answer(digits()).logits.argmax(1)
    check = batch_independence(asked, digits(), labels, norm=norm, epsilon=0.3)
    assert (check.id, check.status, check.n) == (15, "flag", N)
    assert check.k is not None
    assert check.k > 10


def test_models_that_look_at_the_position_are_seen() -> None:
    class Position(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            odd = (torch.arange(len(images)) % 2).float()
            return torch.stack([1 - odd, odd], dim=1) + 0 * images.flatten(1)[:, :1]

    asked = Classifier(Position(), n_classes=2)
    check = batch_independence(asked, digits(), torch.zeros(N, dtype=torch.long), norm="linf", epsilon=0.1)
    assert check.status == "flag"


def test_models_that_look_at_the_order_are_seen() -> None:
    class Order(nn.Module):
        """Class 0 for images that stand where sorting by brightness would put them, and so for a single one."""

        def forward(self, images: Tensor) -> Tensor:
            means = images.flatten(1).mean(1)
            out_of_place = (means.argsort() != torch.arange(len(images))).float()
            return torch.stack([1 - out_of_place, out_of_place], dim=1)

    rising = torch.linspace(0.2, 0.8, N)[:, None, None, None].expand(N, 1, 8, 8).clone()
    asked, labels = Classifier(Order(), n_classes=2), torch.zeros(N, dtype=torch.long)
    assert "".join(Judge(asked).clean(rising, labels)) == "r" * N
    check = batch_independence(asked, rising, labels, norm="linf", epsilon=1e-5)
    assert check.status == "flag"


def test_batch_independence_counts_an_image_once() -> None:
    class SizeOnly(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first = torch.full((len(images), 1), float(len(images) > 1))
            return torch.cat([first, 1 - first], dim=1) + 0 * images.flatten(1)[:, :1]

    asked = Classifier(SizeOnly(), n_classes=2)
    check = batch_independence(asked, digits(), torch.zeros(N, dtype=torch.long), norm="linf", epsilon=0.1)
    assert (check.k, check.n) == (N, N)


class Shaken(nn.Module):
    """Noise of its own in every image; with `coupled` each is moved halfway to its batch's mean before."""

    def __init__(self, *, coupled: bool, noise: float) -> None:
        super().__init__()
        self.inner, self.coupled, self.noise = linear_net(), coupled, noise

    def forward(self, images: Tensor) -> Tensor:
        seen = images / 2 + images.mean(0, keepdim=True) / 2 if self.coupled else images
        logits: Tensor = self.inner(seen + self.noise * torch.randn_like(images))
        return logits


@pytest.mark.parametrize("noise", [1e-3, 0.05, 0.3])
@pytest.mark.parametrize("coupled", [False, True])
def test_a_random_model_that_looks_at_its_batch_is_seen_through_its_noise(noise: float, coupled: bool) -> None:
    check = mean_batch_independence(classifier(Shaken(coupled=coupled, noise=noise)), digits())
    assert (check.id, check.status) == (15, "flag" if coupled else "pass")
    assert check.k == 0 or coupled
    assert check.n == min(N, 32)


def test_a_step_drawn_for_a_whole_batch_is_no_dependence_on_it() -> None:
    """All images of a batch share the draw, and those asked alone do not."""

    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear_net()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(images) * (1 + torch.randint(3, (1,)))
            return logits

    assert mean_batch_independence(classifier(Loud()), digits()).k == 0


# 16 solver gap


class Moving(nn.Module):
    """An ODE classifier of one pixel, y' = rate y: class 1 where the end lies above `edge`."""

    def __init__(self, solver: Solver, *, rate: float, edge: float) -> None:
        super().__init__()
        self.horizon, self.solver, self.rate, self.edge = 1.0, solver, rate, edge

    def stem(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :1]

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        return self.rate * state

    def head(self, state: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(state), state - self.edge], dim=1)


class Turning(Moving):
    """The first two pixels, turned about grey `rate` times the horizon: class 1 where the first ends above grey."""

    def stem(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2] - 0.5

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        return self.rate * torch.stack([-state[:, 1], state[:, 0]], dim=1)

    def head(self, state: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(state[:, 0]), state[:, 0]], dim=1)


def pixels(values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def gap(module: nn.Module, images: Tensor, candidates: Tensor | None = None, *, epsilon: float = 0.2) -> Check:
    """Check 16 on images with the labels that the declared solver gives them."""
    judge = Judge(Classifier(module, n_classes=2))
    labels = judge.answer(images).logits.argmax(1)
    points = images if candidates is None else candidates
    return solver_gap(judge, images, labels, points, norm="linf", epsilon=epsilon)


# One Euler step of y' = -1.5 y over [0, 1] ends at -0.5 y, two of half the length at 0.0625 y. One step of RK4 of
# y' = -3 y ends at 1.375 y, two at 0.0748 y. So a bright pixel changes its class and a dark one does not.
COARSE = {
    "euler": Moving(fixed_step("euler", step=1.0), rate=-1.5, edge=-0.1),
    "rk4": Moving(fixed_step("rk4", step=1.0), rate=-3.0, edge=0.3),
}


@pytest.mark.parametrize("name", COARSE)
@pytest.mark.parametrize(("k", "status"), [(0, "pass"), (4, "pass"), (5, "flag"), (200, "flag")])
def test_letters_that_a_finer_step_moves_are_counted(name: str, k: int, status: str) -> None:
    check = gap(COARSE[name], pixels([0.6] * k + [0.1] * (200 - k)))
    assert (check.id, check.name, check.speaks_of) == (16, "solver gap", "model")
    assert (check.k, check.n, check.status) == (k, 200, status)
    assert check.evidence == {"declared": f"{name} step 1", "finer": f"{name} step 0.5"}


def test_letters_at_the_candidates_count_too_and_an_image_once() -> None:
    images = pixels([0.1, 0.1, 0.1, 0.6])
    # Beyond 0.2 an Euler step errs, where two do not: the second is fooled under the coarse step alone. The third
    # would be, but is projected back; the fourth moves at the image and at the candidate.
    candidates = pixels([0.15, 0.25, 0.9, 0.55])
    assert gap(COARSE["euler"], images, candidates, epsilon=0.2).k == 3
    assert gap(COARSE["euler"], images, candidates, epsilon=0.05).k == 1
    # Fooled at its candidate under both, and moved at the image itself.
    assert gap(COARSE["euler"], pixels([0.6]), pixels([0.15]), epsilon=0.5).k == 1


def test_a_loose_tolerance_on_a_fast_field_is_seen_and_a_tight_one_is_not() -> None:
    images = torch.rand(100, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    loose = gap(Turning(adaptive("dopri5", rtol=0.1), rate=40.0, edge=0.0), images)
    assert loose.status == "flag"
    assert loose.evidence["finer"] == "dopri5 rtol 0.01 atol 0.01 (torchode)"
    tight = gap(Turning(adaptive("dopri5", rtol=1e-5), rate=40.0, edge=0.0), images)
    assert (tight.k, tight.n, tight.status) == (0, 100, "pass")
    assert gap(Turning(fixed_step(step=0.02), rate=10.0, edge=0.0), images).k == 0


def test_a_solver_that_fails_where_a_finer_one_does_not_has_a_gap() -> None:
    images = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    tired = adaptive("dopri5", rtol=1e-5, max_steps=3)
    judge = Judge(Classifier(Turning(tired, rate=10.0, edge=0.0), n_classes=2))
    check = solver_gap(judge, images, torch.zeros(20, dtype=torch.long), images, norm="linf", epsilon=0.1)
    assert check.k == 20


def test_without_a_field_or_an_image_there_is_no_gap_to_find() -> None:
    judge = Judge(classifier(linear_net()))
    none = solver_gap(judge, digits(), labels_of(linear_net()), digits(), norm="linf", epsilon=0.1)
    assert (none.id, none.status, none.k) == (16, "skipped", None)
    assert "integrates nothing" in none.why
    nobody = pixels([0.5])[:0]
    asked = Judge(Classifier(COARSE["rk4"], n_classes=2))
    empty = solver_gap(asked, nobody, torch.zeros(0, dtype=torch.long), nobody, norm="linf", epsilon=0.1)
    assert (empty.status, empty.why) == ("skipped", "no image is classified correctly")


def test_finer_is_half_the_step_or_a_tenth_of_the_tolerances() -> None:
    assert finer(fixed_step("rk4", step=0.25)) == fixed_step("rk4", step=0.125)
    assert finer(fixed_step("euler", step=1.0)) == fixed_step("euler", step=0.5)
    tighter = finer(adaptive("dopri5", rtol=1e-2, atol=1e-4, max_steps=30, backend="torchdiffeq"))
    assert tighter.model_dump() == {
        "method": "dopri5",
        "backend": "torchdiffeq",
        "step": None,
        "rtol": pytest.approx(1e-3),
        "atol": pytest.approx(1e-5),
        "max_steps": 300,
    }


# 18 solver failure


def test_images_lost_to_the_solver_are_counted() -> None:
    check = solver_failure("m" * 90 + "u" * 3 + "x" * 4 + "f" * 3, solver=fixed_step(step=0.25))
    assert (check.id, check.status, check.k, check.n) == (18, "flag", 7, 100)
    assert check.evidence == {"clean": 3, "attacked": 4}
    assert solver_failure("mfr" * 30, solver=None).status == "pass"


def test_a_solver_out_of_steps_is_flagged() -> None:
    net = ode_net(adaptive("dopri5", rtol=1e-6, max_steps=2))
    letters = "".join(Judge(classifier(net)).clean(digits(), torch.zeros(N, dtype=torch.long)))
    check = solver_failure(letters, solver=net.solver)
    assert "a failing solver" in check.why
    assert "solver" not in solver_failure(letters, solver=None).why
    assert (check.status, check.k) == ("flag", letters.count("u"))
    assert letters.count("u") > 10


# The rule


@pytest.mark.parametrize(
    ("k", "n", "status"),
    [
        (5, 200, "flag"),
        (4, 200, "pass"),
        (9, 500, "flag"),
        (8, 500, "pass"),
        (3, 100, "flag"),
        (2, 100, "pass"),
        (0, 500, "pass"),
        (0, 0, "pass"),
        (500, 500, "flag"),
    ],
)
def test_counts_flag_by_the_lower_bound(k: int, n: int, status: str) -> None:
    check = count_check(CheckId.CONVERGENCE, speaks_of="settings", k=k, n=n, why="because", evidence={"a": 1})
    assert (check.status, check.k, check.n, check.threshold) == (status, k, n, 0.01)
    assert check.figure == wilson_lower(k, n)
    assert (check.id, check.name, check.speaks_of, check.why, check.evidence) == (
        6,
        "convergence",
        "settings",
        "because",
        {"a": 1},
    )


def test_measured_and_skipped_checks() -> None:
    check = threshold_check(
        CheckId.INCOMPLETE_OPTIMISATION, speaks_of="settings", flagged=True, figure=0.06, threshold=0.05, why="moves"
    )
    assert (check.id, check.name) == (7, "incomplete optimisation")
    assert (check.status, check.figure, check.threshold, check.k, check.n) == ("flag", 0.06, 0.05, None, None)
    check = threshold_check(
        CheckId.INCOMPLETE_OPTIMISATION, speaks_of="settings", flagged=False, figure=0.04, threshold=0.05, why="moves"
    )
    assert check.status == "pass"
    check = skipped(CheckId.TRANSFER, speaks_of="model", why="no source")
    assert (check.status, check.figure, check.why) == ("skipped", None, "no source")


@pytest.mark.parametrize(("share", "status"), [(0.0, "pass"), (0.05, "flag")])
def test_logits_that_lean_on_the_batch_are_seen_before_a_letter_moves(share: float, status: str) -> None:
    class Leaning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear_net()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner((1 - share) * images + share * images.mean(0, keepdim=True))
            return logits

    module = Leaning().eval()
    check = batch_independence(classifier(module), digits(), labels_of(module), norm="linf", epsilon=0.01)
    assert (check.id, check.status) == (15, status)
