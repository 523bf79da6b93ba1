"""Ascent on the margin: the corner that a linear model has for an optimum, and which classes it goes towards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_model import Linear, grey_images, linear, outcomes, predicted
from small_model import judged as result_of
from torch import Tensor, nn

from odebench.attack.margin import ascend, margin_of, nearest_others, pgd_margin
from odebench.attack.wrapped_model import WrappedModel
from odebench.model.classifier import Classifier
from odebench.numerics.projection import distance, project

EPSILON = {"linf": 0.02, "l2": 0.15}


def wrapped(module: nn.Module, n_classes: int = 5) -> WrappedModel:
    return WrappedModel(Classifier(module.eval().requires_grad_(False), n_classes=n_classes))


def optimum(model: Linear, images: Tensor, labels: Tensor, aims: Tensor, *, norm: str, epsilon: float) -> Tensor:
    slope = (model.weight[aims] - model.weight[labels]).view(images.shape)
    if norm == "linf":
        return project(images, images + epsilon * slope.sign(), norm=norm, epsilon=epsilon)
    return images + epsilon * slope / slope.flatten(1).norm(dim=1)[:, None, None, None]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ascent_on_a_linear_model_ends_in_the_optimum(norm: str) -> None:
    model, images = linear(5), grey_images(12)
    labels = predicted(model, images)
    aims, epsilon = (labels + 1) % 5, EPSILON[norm]
    found = ascend(wrapped(model), images, labels, aims, norm=norm, epsilon=epsilon, steps=30, start=images.roll(0))
    best = optimum(model, images, labels, aims, norm=norm, epsilon=epsilon)
    torch.testing.assert_close(found, best, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pixels_at_the_edge_of_the_range_do_not_hold_the_others_back(norm: str) -> None:
    # Half the pixels are black, and their best move is out of [0, 1]: in l2 the others share the whole radius.
    model = linear(2)
    images = grey_images(6)
    labels = predicted(model, images)
    slope = (model.weight[1 - labels] - model.weight[labels]).view(images.shape)
    blocked = (slope < 0) & (torch.arange(64).view(1, 1, 8, 8) % 2 == 0)
    images = images.masked_fill(blocked, 0.0)
    epsilon, steps = EPSILON[norm], {"linf": 30, "l2": 2}[norm]
    found = ascend(wrapped(model, 2), images, labels, 1 - labels, norm=norm, epsilon=epsilon, steps=steps, start=images)
    free = slope.masked_fill(blocked, 0.0)
    shift = free.sign() if norm == "linf" else free / free.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(found, images + epsilon * shift, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearest_boundary_comes_first(norm: str) -> None:
    model, images = linear(5), grey_images(30)
    labels = predicted(model, images)
    with torch.no_grad():
        logits = model(images)
        slope = (model.weight[labels][:, None] - model.weight[None]).norm(p=1 if norm == "linf" else 2, dim=2)
        radius = (logits.gather(1, labels[:, None]) - logits) / slope.clamp_min(1e-12)
    expected = radius.scatter(1, labels[:, None], torch.inf).argsort(1)[:, :3]
    given: dict[str, Any] = {"norm": norm, "epsilon": 1e-3}
    assert torch.equal(nearest_others(wrapped(model), images, labels, targets=3, **given), expected)
    # It is not always the likeliest class.
    likeliest = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    assert not torch.equal(expected[:, 0], likeliest)


def test_no_more_targets_than_other_classes_and_the_first_start_is_the_image() -> None:
    model, images = linear(3), grey_images(4)
    labels = predicted(model, images)
    asked: list[Tensor] = []
    surface = wrapped(model, 3)
    surface.register_forward_hook(lambda _, given, __: asked.append(given[0].detach().clone()))
    found = pgd_margin(surface, images, labels, norm="linf", epsilon=1e-4, seed=0, steps=2, targets=9, restarts=2)
    # Ranking, comparing, then two starts of two steps and a last look, and whether they fooled.
    assert [len(points) for points in asked] == [4, 8, *[8] * 3, 8, *[8] * 3, 8]
    assert torch.equal(asked[2], images.repeat(2, 1, 1, 1))
    assert not torch.equal(asked[6], images.repeat(2, 1, 1, 1))
    assert (distance(images, found, norm="linf") <= 1e-4 + 1e-7).all()


def test_steps_shrink_along_a_cosine() -> None:
    model, images = linear(2), grey_images(3)
    labels = predicted(model, images)
    asked: list[Tensor] = []
    surface = wrapped(model, 2)
    surface.register_forward_hook(lambda _, given, __: asked.append(given[0].detach().clone()))
    ascend(surface, images, labels, 1 - labels, norm="linf", epsilon=0.01, steps=4, start=images)
    sizes = [float((points - images).abs().max()) / 0.01 for points in asked]
    # Half of epsilon, then (1 + cos(pi / 4)) / 4 of it, then the ball is crossed.
    assert sizes == pytest.approx([0, 0.5, 0.9268, 1, 1], abs=1e-3)


def test_the_largest_margin_of_the_path_is_kept() -> None:
    class Peak(nn.Module):
        """A margin that is largest at a hundredth from the grey image, and falls again beyond."""

        def forward(self, images: Tensor) -> Tensor:
            far = (images - 0.5).flatten(1).mean(1)
            return torch.stack([torch.ones_like(far), 1 - (far - 0.01).abs()], dim=1)

    images, labels = torch.full((2, 1, 8, 8), 0.5), torch.zeros(2, dtype=torch.long)
    given: dict[str, Any] = {"norm": "linf", "epsilon": 0.1, "steps": 1, "start": images}
    found = ascend(wrapped(Peak(), 2), images, labels, 1 - labels, **given)
    with torch.no_grad():
        before, after = (margin_of(Peak()(points), labels, 1 - labels) for points in (images, found))
    # One step of half the radius goes past the peak, to a smaller margin than that of the start.
    assert torch.equal(found, images)
    assert torch.equal(before, after)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_stopping_early_fells_what_running_to_the_end_fells(norm: str) -> None:
    model, images = linear(5), grey_images(40)
    labels = predicted(model, images)
    given: dict[str, Any] = {"steps": 10, "targets": 4, "restarts": 1}
    epsilon = EPSILON[norm] / 2
    end = pgd_margin(wrapped(model), images, labels, norm=norm, epsilon=epsilon, seed=0, **given)
    result = result_of(model, images, labels, n_classes=5, attack="pgd-margin", norm=norm, epsilons=(epsilon,), **given)
    fooled = predicted(model, end) != labels
    assert 3 < fooled.sum() < 37
    assert [letter == "f" for letter in outcomes(result)] == fooled.tolist()
    again = result_of(model, images, labels, n_classes=5, attack="pgd-margin", norm=norm, epsilons=(epsilon,), **given)
    assert again.outcomes_sha256 == result.outcomes_sha256
