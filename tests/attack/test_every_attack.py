"""APGD, FAB, Square, noise and transfer: closed forms, pyautoattack's own numbers, and its traps."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from small_model import Linear, grey_images, judged, linear, outcomes, predicted, smallest_radius
from torch import Tensor, nn

from odebench.attack.definition import load_attack
from odebench.attack.multi_target import PASS_IMAGES
from odebench.attack.wrapped_model import WrappedModel
from odebench.errors import AttackError, UsageError
from odebench.evaluation.verdict import Judge
from odebench.model.classifier import Classifier
from odebench.numerics.projection import ROUNDING, distance
from odebench.registry import load_target

SHORT: dict[str, dict[str, int]] = {
    "apgd-ce": {"steps": 20},
    "apgd-dlr": {"steps": 20},
    "apgd-t": {"steps": 20, "targets": 9},
    "pgd-margin": {"steps": 20, "targets": 9, "restarts": 2},
    "fab-t": {"steps": 20, "targets": 9},
    "smoothed": {"steps": 10, "targets": 4, "draws": 2, "directions": 16},
    "square": {"queries": 200},
    "spsa": {"steps": 20, "targets": 9, "directions": 64},
    "noise": {"draws": 20},
}
EPSILON = {"linf": 0.02, "l2": 0.15}
ALL = [(name, norm) for name in SHORT for norm in EPSILON]
PURSUED = ("apgd-ce", "apgd-dlr", "apgd-t", "pgd-margin", "smoothed", "spsa", "noise")


def surface_of(module: nn.Module, n_classes: int) -> WrappedModel:
    return WrappedModel(Classifier(module.eval().requires_grad_(False), n_classes=n_classes))


def attack(
    name: str,
    surface: WrappedModel,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    epsilon: float = 0.02,
    seed: int = 7,
    fallen: Any = None,
    sources: Any = None,
    **parameters: Any,
) -> Tensor:
    """The registered attack, called as an evaluation calls it."""
    definition = load_attack(name)
    function: Callable[..., Tensor] = load_target(definition.function)
    full = definition.complete({**SHORT.get(name, {}), **parameters})
    extra = {} if sources is None else {"sources": sources}
    return function(surface, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen, **full, **extra)


def case(n_classes: int = 5, n: int = 24) -> tuple[Linear, WrappedModel, Tensor, Tensor]:
    model, images = linear(n_classes), grey_images(n)
    return model, surface_of(model, n_classes), images, predicted(model, images)


# Several targets in one pass


@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
@pytest.mark.parametrize(("n", "passes"), [(5, 1), (24, 2)])
def test_where_few_images_stand_several_targets_share_a_pass(name: str, n: int, passes: int) -> None:
    # Nothing falls within this radius, so that every target is tried to the end: 9 of 5, or 4 of 24 images in a pass.
    model, images = linear(10), grey_images(n)
    labels = predicted(model, images)
    calls: list[int] = []
    surface = surface_of(model, 10)
    surface.register_forward_hook(lambda _, asked, __: calls.append(len(asked[0])))
    attack(name, surface, images, labels, epsilon=1e-4, steps=10, targets=4 * passes if n == 24 else 9)
    assert max(calls) == min(PASS_IMAGES // n, 9) * n
    assert len(calls) <= passes * (2 * 10 + 4) + 3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_finds_what_pyautoattacks_own_finds_target_by_target(norm: str) -> None:
    model, surface, images, labels = case(5, n=12)
    radius = {"linf": 0.05, "l2": 0.4}[norm]
    ours = attack("fab-t", surface, images, labels, norm=norm, epsilon=radius, targets=4)
    theirs = FABAttack_PT(
        surface, norm={"linf": "Linf", "l2": "L2"}[norm], n_iter=20, eps=radius, targeted=True, n_target_classes=4
    ).perturb(images.clone(), labels)
    fell = [(predicted(model, found) != labels).tolist() for found in (ours, theirs)]
    assert fell[0] == fell[1]
    assert sum(fell[0]) > 3
    # Theirs keeps the first target's fall, ours the closest of the targets in one pass.
    both = torch.tensor(fell[0])
    assert (distance(images, ours, norm=norm) <= distance(images, theirs, norm=norm) + 1e-5)[both].all()


def test_copies_of_an_image_are_verified_until_one_is_confirmed() -> None:
    model, surface, images, labels = case(5, n=10)
    asked: list[int] = []

    def third_time(rows: Tensor, candidates: Tensor) -> Tensor:
        assert len(set(rows.tolist())) == len(rows), "no image twice in one question"
        asked.extend(rows.tolist())
        fell = predicted(model, candidates) != labels[rows]
        return fell & torch.tensor([asked.count(int(row)) >= 3 for row in rows])

    attack("apgd-t", surface, images, labels, epsilon=0.1, targets=4, fallen=third_time)
    assert {asked.count(row) for row in range(10)} <= {0, 1, 2, 3}
    assert max(asked.count(row) for row in range(10)) == 3


# Closed forms


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize(("name", "norm"), ALL)
def test_candidates_lie_in_ball_and_box_and_never_beat_the_closed_form(name: str, norm: str, n_classes: int) -> None:
    if (name, n_classes) == ("apgd-dlr", 2):
        with pytest.raises(AttackError, match="at least three classes"):
            attack(name, *case(n_classes)[1:], norm=norm, epsilon=EPSILON[norm])
        return
    model, surface, images, labels = case(n_classes)
    epsilon = EPSILON[norm]
    found = attack(name, surface, images, labels, norm=norm, epsilon=epsilon)
    assert found.shape == images.shape
    assert (distance(images, found, norm=norm) <= epsilon + ROUNDING).all()
    assert ((found >= 0) & (found <= 1)).all()
    fooled = predicted(model, found) != labels
    radius = smallest_radius(model, images, labels, norm=norm)
    assert (radius[fooled] <= epsilon * (1 + 1e-5)).all()
    if name != "noise":
        assert fooled.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("name", "n_classes", "share"),
    [
        ("apgd-ce", 2, 0.99),
        ("apgd-t", 2, 0.99),
        ("apgd-t", 3, 0.99),
        ("apgd-t", 5, 0.95),
        ("pgd-margin", 2, 0.999),
        ("pgd-margin", 3, 0.999),
        ("pgd-margin", 5, 0.999),
        ("smoothed", 2, 0.95),
        ("smoothed", 5, 0.95),
        ("fab-t", 2, 0.95),
        ("fab-t", 5, 0.95),
        ("square", 2, 0.4),
        ("spsa", 2, 0.99),
        ("spsa", 5, 0.95),
    ],
)
def test_a_linear_model_falls_wherever_it_can(name: str, n_classes: int, share: float, norm: str) -> None:
    model, surface, images, labels = case(n_classes, n=40)
    epsilon, radius = EPSILON[norm], smallest_radius(model, images, labels, norm=norm)
    longer = {"square": {"queries": 1000}, "apgd-t": {"steps": 40}, "spsa": {"steps": 40}}.get(name, {})
    # Square moves whole columns and squares, so it ends short of the corner that a gradient points to.
    found = attack(name, surface, images, labels, norm=norm, epsilon=epsilon, **longer)
    fooled = predicted(model, found) != labels
    assert 5 < (radius < epsilon).sum() < 40
    assert fooled[radius < share * epsilon].all()
    assert not fooled[radius > epsilon * (1 + 1e-5)].any()


def test_random_corners_fell_what_is_close() -> None:
    model, surface, images, labels = case(2, n=60)
    found = attack("noise", surface, images, labels, epsilon=0.1)
    assert (predicted(model, found) != labels).any()
    inside = (images > 0.1) & (images < 0.9)
    moved = (found != images).flatten(1).any(1)
    size = (found - images).abs()[moved][inside[moved]]
    torch.testing.assert_close(size, torch.full_like(size, 0.1), rtol=0, atol=1e-6)


def test_noise_does_not_hang_on_how_images_lie_in_memory() -> None:
    _, surface, images, labels = case(2, n=10)
    by_column = images.transpose(2, 3).contiguous().transpose(2, 3)
    found = attack("noise", surface, by_column, labels, epsilon=0.1)
    assert torch.equal(found, attack("noise", surface, images, labels, epsilon=0.1))


# pyautoattack's own numbers


@pytest.mark.parametrize(("name", "loss"), [("apgd-ce", "ce"), ("apgd-dlr", "dlr")])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_candidates_are_those_of_pyautoattack_bit_for_bit(name: str, loss: str, norm: str) -> None:
    model, surface, images, labels = case(5)
    theirs = APGDAttack(
        model,
        n_iter=15,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        eps=EPSILON[norm],
        loss=loss,
        device=torch.device("cpu"),
    )
    theirs.init_hyperparam(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        loudest, standing, _, fooling = theirs.attack_single_run(images.clone(), labels.clone())
    found = attack(name, surface, images, labels, norm=norm, epsilon=EPSILON[norm], steps=15)
    stands = standing.bool()
    assert stands.any(), "the case must hold images that are never fooled"
    assert torch.equal(found[~stands], fooling[~stands])
    assert torch.equal(found[stands], loudest[stands]), "not the random start"
    assert not torch.equal(loudest[stands], fooling[stands])
    assert (found != images).flatten(1).any(1).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_large_logits_do_not_flatten_the_targeted_loss(n_classes: int) -> None:
    model, _, images, labels = case(n_classes)
    steep = Linear(model.weight.detach() * 1e5, model.bias.detach() * 1e5)
    radius = smallest_radius(model, images, labels, norm="linf")
    found = attack("apgd-t", surface_of(steep, n_classes), images, labels, steps=40)
    assert (predicted(model, found) != labels)[radius < 0.95 * 0.02].all()


# Traps


@pytest.mark.parametrize("n_classes", [2, 3, 4, 5, 10])
def test_targets_are_no_more_than_the_other_classes(n_classes: int) -> None:
    model, surface, images, labels = case(n_classes, n=6)
    for name in ("apgd-t", "fab-t"):
        found = attack(name, surface, images, labels, steps=3, epsilon=0.05)
        assert (predicted(model, found) != labels).any()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_target_but_the_label_itself_is_tried(n_classes: int) -> None:
    # Labels that the model does not choose: the likeliest class is then a target like any other.
    model, surface, images, _ = case(n_classes, n=6)
    labels = (predicted(model, images) + 1) % n_classes
    found = attack("apgd-t", surface, images, labels, steps=3)
    assert (predicted(model, found) != labels).all()


def test_the_ratio_of_logits_needs_three_classes() -> None:
    _, surface, images, labels = case(2, n=4)
    with pytest.raises(AttackError, match="the DLR loss needs at least three classes; use apgd-ce"):
        attack("apgd-dlr", surface, images, labels)
    with pytest.raises(AttackError, match="the DLR loss needs at least three classes"):
        judged(linear(2), images, labels, n_classes=2, attack="apgd-dlr")


class Remembering(nn.Module):
    """A model that keeps the logits it gave."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.given: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        self.given.append(logits)
        return logits


def test_square_does_not_write_into_the_logits_of_the_model() -> None:
    model = Remembering(linear(3))
    images = grey_images(8)
    surface, labels = surface_of(model, 3), predicted(model.inner, images)
    attack("square", surface, images, labels, queries=20)
    assert len(model.given) > 10
    assert all(logits.isfinite().all() for logits in model.given)


class Undecided(nn.Module):
    """A model that ties as soon as an image is moved, and refuses to be asked about nothing."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, images: Tensor) -> Tensor:
        assert len(images), "asked about no image"
        logits = torch.zeros(len(images), 3) + 0 * images.flatten(1)[:, :1]
        still = (images[:, None] == self.images[None]).flatten(2).all(2).any(1)
        return torch.where(still[:, None] & (torch.arange(3) == 0), 1.0, logits)


@pytest.mark.parametrize(("name", "norm"), ALL)
def test_a_tie_is_a_fall_and_stops_nothing(name: str, norm: str) -> None:
    images = grey_images(3)
    model, labels = Undecided(images), torch.zeros(3, dtype=torch.long)
    found = attack(name, surface_of(model, 3), images, labels, norm=norm, epsilon=EPSILON[norm])
    assert found.isfinite().all()
    if name in ("square", "noise"):
        result = judged(model, images, labels, n_classes=3, attack=name, norm=norm, epsilons=(EPSILON[norm],))
        assert outcomes(result) == "fff"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_is_pyautoattacks_own_where_nothing_ties(norm: str) -> None:
    model, surface, images, labels = case(5)
    theirs = SquareAttack(
        lambda points: model(points).clone(),
        norm={"linf": "Linf", "l2": "L2"}[norm],
        n_queries=100,
        eps=EPSILON[norm],
        seed=7,
        resc_schedule=False,
        device=torch.device("cpu"),
    )
    with torch.random.fork_rng(devices=[]):
        expected = theirs.perturb(images.clone(), labels)
    fooled = predicted(model, expected) != labels
    found = attack("square", surface, images, labels, norm=norm, epsilon=EPSILON[norm], queries=100)
    assert 5 < fooled.sum() < len(images)
    assert torch.equal(found[fooled], expected[fooled])
    assert torch.equal(predicted(model, found) != labels, fooled)


@pytest.mark.parametrize(("name", "norm"), ALL)
def test_calls_are_reproducible_and_leave_no_trace(name: str, norm: str) -> None:
    _, surface, images, labels = case(5, n=6)
    before = images.clone(), labels.clone()
    found = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)
        random.seed(disturbance)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        found.append(attack(name, surface, images, labels, norm=norm, epsilon=EPSILON[norm]))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.random.get_state()[1].tolist() == states[1]
        assert random.getstate() == states[2]
    assert torch.equal(found[0], found[1])
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert not found[0].requires_grad


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "square", "noise"])
def test_another_seed_gives_other_candidates(name: str) -> None:
    model, surface, images, labels = case(5, n=12)
    # In l2 the iterates keep a trace of where they began; in linf they end in one and the same corner.
    first, other = (attack(name, surface, images, labels, norm="l2", epsilon=0.9, seed=seed) for seed in (3, 4))
    assert (predicted(model, first) != labels).any()
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "norm"), ALL)
def test_zero_gradients_are_no_warning_and_no_error(name: str, norm: str) -> None:
    # Warnings are errors in this suite.
    flat = Linear(torch.zeros(5, 64), torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    images, labels = grey_images(4), torch.zeros(4, dtype=torch.long)
    found = attack(name, surface_of(flat, 5), images, labels, norm=norm, epsilon=EPSILON[norm])
    assert found.isfinite().all()
    assert (predicted(flat, found) == 0).all()


@pytest.mark.parametrize("name", PURSUED)
def test_an_attack_stops_at_verified_falls(name: str) -> None:
    model, _, images, labels = case(5)
    passes = {}
    confirmed: dict[int, Tensor] = {}

    def confirm(rows: Tensor, candidates: Tensor) -> Tensor:
        down = predicted(model, candidates) != labels[rows]
        confirmed.update({int(row): candidates[at] for at, row in enumerate(rows) if down[at]})
        return down

    for fallen in (None, confirm):
        surface = surface_of(model, 5)
        found = attack(name, surface, images, labels, epsilon=0.1, fallen=fallen)
        passes[fallen] = surface.forward_images
    assert len(confirmed) > 5
    assert all(torch.equal(found[row], candidate) for row, candidate in confirmed.items())
    assert passes[confirm] < passes[None] / 2


@pytest.mark.parametrize("name", PURSUED)
def test_refusing_every_fall_is_running_to_the_end(name: str) -> None:
    _, surface, images, labels = case(5)
    refused: list[int] = []

    def refuse(rows: Tensor, candidates: Tensor) -> Tensor:
        refused.extend(rows.tolist())
        return torch.zeros(len(rows), dtype=torch.bool)

    end = attack(name, surface, images, labels, epsilon=0.05)
    found = attack(name, surface, images, labels, epsilon=0.05, fallen=refuse)
    assert refused
    torch.testing.assert_close(found, end, rtol=0, atol=1e-5)


class Hasty(nn.Module):
    """A model that says under autocast that every label is wrong; in fp32 it fails at the black image."""

    def __init__(self, inner: Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        autocast = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            logits: Tensor = self.inner(images)
        if autocast:
            return -logits
        return logits.masked_fill((images == 0).flatten(1).all(1)[:, None], torch.nan)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_fall_that_fp32_refuses_does_not_stop_square(norm: str) -> None:
    model, exact, images, labels = case(5)
    classifier = Classifier(Hasty(model).eval().requires_grad_(False), n_classes=5)
    hasty = WrappedModel(classifier, precision="bf16")
    expected, found = (
        attack("square", one, images, labels, norm=norm, epsilon=EPSILON[norm]) for one in (exact, hasty)
    )
    fooled = predicted(model, expected) != labels
    assert fooled.any()
    assert not fooled.all()
    assert torch.equal(found, expected)


def test_square_asks_fp32_about_doubtful_points_alone() -> None:
    model, _, images, labels = case(5)
    surface = WrappedModel(Classifier(model.requires_grad_(False), n_classes=5), precision="bf16")
    found = attack("square", surface, images, labels)
    fooled = predicted(model, found) != labels
    assert 0 < fooled.sum() < len(images)
    assert fooled.sum() <= surface.fp32.forward_images < surface.forward_images / 4


def test_the_exact_surface_of_fp32_is_itself_and_that_of_bf16_shares_its_failures() -> None:
    plain = surface_of(linear(5), 5)
    assert plain.fp32 is plain
    quick = WrappedModel(Classifier(Hasty(linear(5)), n_classes=5), precision="bf16")
    assert quick.fp32.precision == "fp32"
    quick(torch.zeros(1, 1, 8, 8))
    assert not quick.failures
    quick.fp32(torch.zeros(1, 1, 8, 8))
    assert len(quick.failures) == 1
    quick.failures.clear()
    assert not quick.fp32.failures


def test_what_the_exact_surface_is_asked_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"bf16": 0, "fp32": 0}
    forward = WrappedModel.forward

    def watched(self: WrappedModel, images: Tensor) -> Tensor:
        asked[self.precision] += len(images)
        return forward(self, images)

    monkeypatch.setattr(WrappedModel, "forward", watched)
    model, _, images, labels = case(5)
    result = judged(Hasty(model).eval(), images, labels, n_classes=5, attack="square", precision="bf16", queries=100)
    assert asked["fp32"] >= asked["bf16"] > 10 * len(images)
    assert result.cost.forward * len(images) > asked["bf16"] + asked["fp32"]


def test_a_smallest_perturbation_beyond_epsilon_is_not_invalid() -> None:
    model, _, images, labels = case(5)
    far = (images + 0.2).clamp(0, 1)
    judge = Judge(Classifier(model, n_classes=5))
    counts = [
        judge.candidates(
            images, labels, far, norm="linf", epsilon=0.01, fixed_budget=load_attack(name).fixed_budget
        ).invalid.sum()
        for name in ("fab-t", "apgd-ce")
    ]
    assert counts == [0, len(images)]
    result = judged(model, images, labels, n_classes=5, attack="fab-t", epsilons=(0.005, 0.05), steps=10)
    assert [item.figures.invalid for item in result.epsilons] == [0, 0]
    assert outcomes(result, 0).count("f") < outcomes(result, 1).count("f")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("square", {"queries": 0}, "square: queries must be a whole number of at least 1, not 0"),
        ("apgd-t", {"targets": 1.5}, "apgd-t: targets must be a whole number of at least 1, not 1.5"),
        (
            "worst-case",
            {"effort": "heroic"},
            "worst-case: effort is fast-2 or standard-2 or fast or standard, not 'heroic'",
        ),
        ("worst-case", {"effort": 3}, "worst-case: effort must be a text, not 3"),
        ("noise", {"steps": 3}, "noise has no parameter steps; known: draws"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_attack(name).complete(parameters)


# Transfer


def test_transfer_without_sources_gives_the_images_back() -> None:
    _, surface, images, labels = case(5)
    found = attack("transfer", surface, images, labels, sources=[])
    assert torch.equal(found, images)
    assert found.data_ptr() != images.data_ptr()


def test_transfer_crafts_on_its_sources_and_does_not_ask_the_model() -> None:
    _, surface, images, labels = case(5)
    source = surface_of(linear(5, seed=3), 5)
    found = attack("transfer", surface, images, labels, sources=[source], steps=20, epsilon=0.05)
    assert surface.forward_images == 0
    assert source.backward_images > 0
    assert (distance(images, found, norm="linf") <= 0.05 + ROUNDING).all()
    with torch.no_grad():
        before, after = (
            nn.functional.cross_entropy(linear(5, seed=3)(points), labels, reduction="none")
            for points in (images, found)
        )
    assert (after > before).all()


def test_transfer_takes_the_iterate_of_the_largest_loss() -> None:
    # Also where the source is fooled: the last iterate that fools it may do so barely, and not transfer.
    _, surface, images, _ = case(5)
    other = linear(5, seed=3)
    labels = predicted(other, images)
    found = attack("transfer", surface, images, labels, sources=[surface_of(other, 5)], steps=10, epsilon=0.005)
    theirs = APGDAttack(other, n_iter=10, norm="Linf", eps=0.005, loss="ce", device=torch.device("cpu"))
    theirs.init_hyperparam(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = theirs.attack_single_run(images.clone(), labels.clone())[0]
    assert torch.equal(found, expected)


def test_an_image_that_fell_is_not_attacked_on_the_next_source() -> None:
    _, surface, images, labels = case(5)
    sources = [surface_of(linear(5, seed=seed), 5) for seed in (3, 4)]

    def half(rows: Tensor, candidates: Tensor) -> Tensor:
        return rows % 2 == 0

    found = attack("transfer", surface, images, labels, sources=sources, steps=10, fallen=half)
    assert sources[0].forward_images == 2 * sources[1].forward_images
    alone = attack("transfer", surface, images, labels, sources=sources[:1], steps=10)
    assert torch.equal(found[::2], alone[::2])
    assert not torch.equal(found[1::2], alone[1::2])


def test_candidates_of_a_source_fell_the_model_by_its_own_verdict_alone() -> None:
    model, _, images, labels = case(2, n=50)
    same = Linear(model.weight.detach() * 3, model.bias.detach() * 3)
    opposite = Linear(-model.weight.detach(), -model.bias.detach())
    options: dict[str, Any] = {"n_classes": 2, "attack": "transfer", "epsilons": (0.02,), "steps": 20}
    kept: dict[float, dict[int, Tensor]] = {}
    fell = judged(model, images, labels, sources={"same": same}, keep=kept, **options)
    radius = smallest_radius(model, images, labels, norm="linf")
    assert [letter == "f" for letter in outcomes(fell)] == (radius < 0.02).tolist()
    assert all(
        (predicted(model, kept[0.02][row][None])[0] != labels[row]) == (letter == "f")
        for row, letter in enumerate(outcomes(fell))
    )
    # What fools this source is what the model is surest of: the source errs on each, the model on none.
    stood = judged(model, images, labels, sources={"opposite": opposite}, **options)
    assert outcomes(stood) == "r" * 50
    assert stood.evaluation.attack.sources == ("opposite",)
    assert set(stood.found.sources_sha256) == {"opposite"}


def test_transfer_needs_a_source() -> None:
    model, _, images, labels = case(2, n=4)
    with pytest.raises(UsageError, match="transfer needs other models to craft candidates on; name them as sources"):
        judged(model, images, labels, n_classes=2, attack="transfer")
