"""Stopping at the first verified fall: what it saves, and that it changes nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from odebench.attack.early_stopping import strictly_correct, with_early_stopping
from odebench.attack.foolbox import pgd
from odebench.attack.wrapped_model import WrappedModel
from odebench.model.classifier import Classifier
from odebench.numerics.projection import distance

N, STEPS, SEED, EPSILON = 12, 15, 11, 0.2
Ask = Callable[[Tensor, Tensor], Tensor]


class Linear(nn.Module):
    """Two classes, logits (0, w.x - w/2); NaN where a pixel exceeds `breaks_above`."""

    def __init__(self, *, breaks_above: float = torch.inf) -> None:
        super().__init__()
        weight = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight / weight.norm())
        self.breaks_above = breaks_above

    def forward(self, images: Tensor) -> Tensor:
        margin = ((images - 0.5) * self.weight).flatten(1).sum(1)
        logits = torch.stack([torch.zeros_like(margin), margin], dim=1)
        return logits.masked_fill((images.flatten(1).amax(1) > self.breaks_above)[:, None], torch.nan)


def surface(**options: float) -> WrappedModel:
    return WrappedModel(Classifier(Linear(**options).eval(), n_classes=2))


def points() -> Tensor:
    """Images at different distances from the decision, so that they fall at different steps, or not at all."""
    direction = Linear().weight / 8
    reach = torch.linspace(0.2, 12.0, N)
    noise = 0.01 * torch.randn(N, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return (0.5 + reach[:, None, None, None] * direction + noise).clamp(0, 1)


IMAGES, LABELS = points(), torch.ones(N, dtype=torch.long)


class Recorder(nn.Module):
    """A model that keeps what it was asked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.asked = inner, []
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(images.detach().clone())
        logits: Tensor = self.inner(images)
        return logits


def walk(model: nn.Module) -> Tensor:
    """A noisy signed-gradient walk that uses random numbers at every step, one question a step."""
    at = IMAGES + torch.empty_like(IMAGES).uniform_(-0.01, 0.01)
    for _ in range(STEPS):
        at = at.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(at), LABELS, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, at)
        step = 0.01 * gradient.sign() + 0.002 * torch.randn_like(at)
        at = (IMAGES + (at + step - IMAGES).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    return at.detach()


def undisturbed() -> tuple[Tensor, Tensor, list[int]]:
    """The last iterates, all iterates (step, image), and the step at which an image first falls (STEPS: never)."""
    recorder = Recorder(surface())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        last = walk(recorder)
    path = torch.stack(recorder.asked)
    down = torch.stack([~strictly_correct(surface()(at), LABELS) for at in path])
    first = [int(column.nonzero()[0, 0]) if column.any() else STEPS for column in down.T]
    return last, path, first


LAST, PATH, FIRST = undisturbed()


def run(asked: WrappedModel, fallen: Ask, *, attack: Callable[[nn.Module], Tensor] = walk) -> Tensor:
    return with_early_stopping(attack, asked, IMAGES, LABELS, norm="linf", epsilon=EPSILON, seed=SEED, fallen=fallen)


def accept(rows: Tensor, candidates: Tensor) -> Tensor:
    return torch.ones(len(rows), dtype=torch.bool)


def refuse(rows: Tensor, candidates: Tensor) -> Tensor:
    return torch.zeros(len(rows), dtype=torch.bool)


def test_the_walk_fells_early_late_and_never() -> None:
    assert min(FIRST) <= 1
    assert any(3 < step < STEPS for step in FIRST)
    assert FIRST.count(STEPS) >= 2


def test_each_image_is_asked_until_its_first_fall_and_no_longer() -> None:
    asked = surface()
    candidates = run(asked, accept)
    assert asked.forward_images == sum(min(step + 1, STEPS) for step in FIRST)
    assert asked.forward_images < N * STEPS
    for row, step in enumerate(FIRST):
        expected = PATH[step, row] if step < STEPS else LAST[row]
        torch.testing.assert_close(candidates[row], expected, rtol=0, atol=1e-6)


def test_what_was_verified_is_what_comes_back() -> None:
    seen: dict[int, Tensor] = {}

    def note(rows: Tensor, candidates: Tensor) -> Tensor:
        seen.update(zip(rows.tolist(), candidates.clone(), strict=True))
        return accept(rows, candidates)

    candidates = run(surface(), note)
    assert sorted(seen) == [row for row in range(N) if FIRST[row] < STEPS]
    for row, candidate in seen.items():
        assert torch.equal(candidates[row], candidate)
        assert not strictly_correct(surface()(candidate[None]), LABELS[:1])
        assert float(distance(IMAGES[row : row + 1], candidate[None], norm="linf")) <= EPSILON + 1e-6


def test_the_attack_ends_when_no_image_is_left() -> None:
    rows = [row for row in range(N) if FIRST[row] < 8]
    images, labels, steps = IMAGES[rows], LABELS[rows], []

    def short(model: nn.Module) -> Tensor:
        at = images.clone()
        for _ in range(200):
            at = at.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(at), labels, reduction="sum")
            at = at + 0.01 * torch.autograd.grad(loss, at)[0].sign()
            steps.append(1)
        return at

    candidates = with_early_stopping(
        short, surface(), images, labels, norm="linf", epsilon=EPSILON, seed=0, fallen=accept
    )
    assert len(steps) < 20
    assert not strictly_correct(surface()(candidates), labels).any()


def test_refused_suspicions_end_where_the_undisturbed_run_ends() -> None:
    asked = surface()
    candidates = run(asked, refuse)
    torch.testing.assert_close(candidates, LAST, rtol=0, atol=1e-6)
    # Once until the first suspicion, once more to the end.
    first_pass = sum(min(step + 1, STEPS) for step in FIRST)
    assert asked.forward_images == first_pass + STEPS * sum(step < STEPS for step in FIRST)


def test_a_provisional_surface_leaves_what_is_refused_where_it_was_caught() -> None:
    asked = WrappedModel(Classifier(Linear().eval(), n_classes=2), provisional=True)
    found = run(asked, refuse)
    for row, step in enumerate(FIRST):
        assert torch.equal(found[row], PATH[step, row] if step < STEPS else LAST[row])
    # Asked until the first suspicion, and not once more from the beginning.
    assert asked.forward_images == sum(min(step + 1, STEPS) for step in FIRST)


def test_some_confirmed_and_some_refused() -> None:
    def even(rows: Tensor, candidates: Tensor) -> Tensor:
        return rows % 2 == 0

    asked = surface()
    candidates = run(asked, even)
    for row, step in enumerate(FIRST):
        confirmed = step < STEPS and row % 2 == 0
        torch.testing.assert_close(candidates[row], PATH[step, row] if confirmed else LAST[row], rtol=0, atol=1e-6)
    again = sum(step < STEPS and row % 2 == 1 for row, step in enumerate(FIRST))
    assert asked.forward_images == sum(min(step + 1, STEPS) for step in FIRST) + STEPS * again


def test_a_later_suspicion_may_be_confirmed_on_the_spot() -> None:
    row = next(row for row in range(N) if FIRST[row] < 4)
    times = []

    def third_time(rows: Tensor, candidates: Tensor) -> Tensor:
        here = rows == row
        if here.any():
            times.append(candidates[here][0].clone())
        return here & torch.tensor(len(times) >= 3)

    candidates = run(surface(), third_time)
    # The first refusal, its repetition in the second run, and the step after it.
    assert len(times) == 3
    torch.testing.assert_close(times[0], PATH[FIRST[row], row], rtol=0, atol=1e-6)
    torch.testing.assert_close(times[1], times[0], rtol=0, atol=1e-6)
    assert torch.equal(candidates[row], times[2])
    torch.testing.assert_close(times[2], PATH[FIRST[row] + 1, row], rtol=0, atol=1e-6)
    others = [other for other in range(N) if other != row]
    torch.testing.assert_close(candidates[others], LAST[others], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fallen", [accept, refuse])
def test_neighbours_of_a_fallen_image_walk_on_as_before(fallen: Ask) -> None:
    candidates = run(surface(), fallen)
    never = [row for row in range(N) if FIRST[row] == STEPS]
    torch.testing.assert_close(candidates[never], LAST[never], rtol=0, atol=1e-6)


def test_the_fallen_are_asked_in_rows_of_the_attacked_images() -> None:
    def check(rows: Tensor, candidates: Tensor) -> Tensor:
        assert rows.dtype == torch.long
        assert candidates.shape == (len(rows), *IMAGES.shape[1:])
        assert (distance(IMAGES[rows], candidates, norm="linf") <= EPSILON + 1e-6).all()
        return rows == 0

    run(surface(), check)


def test_images_that_failed_are_suspects() -> None:
    asked, seen = surface(breaks_above=0.6), []
    images = torch.full((4, 1, 8, 8), 0.5) + 0.05 * Linear().weight.sign()
    images[2, 0, 0, 0] = 0.7

    def note(rows: Tensor, candidates: Tensor) -> Tensor:
        seen.extend(rows.tolist())
        return accept(rows, candidates)

    def still(model: nn.Module) -> Tensor:
        model(images)
        return images

    with_early_stopping(
        still, asked, images, torch.ones(4, dtype=torch.long), norm="linf", epsilon=EPSILON, seed=0, fallen=note
    )
    assert seen == [2]
    assert len(asked.failures) == 1


def test_ties_are_suspects() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0 + 1e-7]])
    assert strictly_correct(logits, torch.tensor([0, 1, 1, 1])).tolist() == [False, True, False, True]


def test_candidates_beyond_the_budget_are_no_suspects() -> None:
    seen = []

    def leap(model: nn.Module) -> Tensor:
        far = (IMAGES - 1.0 * Linear().weight.sign()).clamp(0, 1)
        assert not strictly_correct(model(far), LABELS).all()
        return far

    def note(rows: Tensor, candidates: Tensor) -> Tensor:
        seen.extend(rows.tolist())
        return accept(rows, candidates)

    run(surface(), note, attack=leap)
    assert seen == []


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [1 / 255, 2 / 255, 4 / 255])
def test_the_edge_of_the_ball_is_within_the_budget(norm: str, epsilon: float) -> None:
    """x + epsilon is rounded in fp32, on bytes over 255 nearly always beyond epsilon by a hair."""
    images = torch.randint(60, 200, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 255
    weight = Linear().weight
    margins = ((images - 0.5) * weight).flatten(1).sum(1)
    # Every image is moved to just inside what the whole budget can fell.
    budget = epsilon * float(weight.abs().sum() if norm == "linf" else weight.norm())
    images = images + ((0.97 * budget - margins) / weight.square().sum())[:, None, None, None] * weight
    images = (images * 255).round() / 255 if norm == "linf" and epsilon > 1 / 255 else images
    labels = torch.ones(20, dtype=torch.long)
    assert strictly_correct(surface()(images), labels).all()
    steps, suspected = 8, []

    def note(rows: Tensor, candidates: Tensor) -> Tensor:
        suspected.extend(rows.tolist())
        return accept(rows, candidates)

    found = pgd(
        surface(),
        images,
        labels,
        norm=norm,
        epsilon=epsilon,
        seed=0,
        fallen=note,
        steps=steps,
        relative_step=2.5 / steps,
        random_start=False,
    )
    down = ~strictly_correct(surface()(found), labels)
    assert down.sum() > 10
    assert sorted(suspected) == down.nonzero().flatten().tolist()


def test_the_same_pursuit_twice_is_the_same() -> None:
    def some(rows: Tensor, candidates: Tensor) -> Tensor:
        return rows % 3 == 0

    torch.manual_seed(1)
    first = run(surface(), some)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(run(surface(), some), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_are_not_changed() -> None:
    before = IMAGES.clone()
    candidates = run(surface(), refuse)
    candidates.add_(1)
    assert torch.equal(IMAGES, before)
