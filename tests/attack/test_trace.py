"""What an attack did on its way: losses, the first point that fooled, falls that its end does not show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_model import judged, outcomes
from torch import Tensor, nn

from odebench.attack.trace import Trace
from odebench.attack.wrapped_model import WrappedModel
from odebench.model.classifier import Classifier


class Shell(nn.Module):
    """Two classes of the first pixel p: class 1 where `low` < p < `high`, and the logit rises with p beyond.

    The gradient of class 0 leads upward everywhere, so long steps jump across the shell.
    """

    def __init__(self, low: float = 0.52, high: float = 0.56) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, images: Tensor) -> Tensor:
        pixel = images.flatten(1)[:, 0]
        inside = (pixel > self.low) & (pixel < self.high)
        margin = torch.where(inside, 1.0, -1.0) + 0.1 * (pixel - pixel.detach()) + 0 * pixel
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def images_at(pixel: float, n: int) -> Tensor:
    images = torch.full((n, 1, 2, 2), 0.5)
    images[:, 0, 0, 0] = pixel
    return images


def diagnosed(**options: Any) -> Any:
    """Quick diagnosis of Shell at pixel 0.5: a step of `relative_step` x 0.1 upward, twice, without a random start."""
    given = {"steps": 4, "relative_step": 0.4, "random_start": False, **options}
    images = images_at(0.5, 20)
    return judged(
        Shell(), images, torch.zeros(20, dtype=torch.long), n_classes=2, attack="quick-diagnosis", chunk=20, **given
    )


def check(result: Any, number: int) -> Any:
    return next(check for check in result.checks if check.id == number)


def test_a_fall_on_the_way_that_the_end_does_not_show_is_silent_success() -> None:
    # 0.5, 0.54 (within the shell), 0.58, 0.6: the attack returns a point that is classified correctly.
    result = diagnosed()
    silent = check(result, 8)
    assert (silent.status, silent.k, silent.n) == ("flag", 20, 20)
    assert outcomes(result) == "f" * 20, "the first fall is kept"
    assert set(result.epsilons[0].felled_by.letters) == {"a"}
    assert result.epsilons[0].felled_by.legend["aa"] == "pgd"
    losses = silent.evidence["median_loss"]
    # softplus(-1) where it is right, softplus(1) within the shell; the end is not asked about
    right, fooled = (float(nn.functional.softplus(torch.tensor(value))) for value in (-1.0, 1.0))
    assert losses == pytest.approx([right, fooled, right, right], abs=1e-5)


def test_an_attack_that_ends_where_it_fools_is_not_silent() -> None:
    # One step of 0.04: the end lies within the shell.
    result = diagnosed(steps=1)
    assert outcomes(result) == "f" * 20
    assert (check(result, 8).k, check(result, 8).status) == (0, "pass")


def test_an_attack_that_steps_across_falls_nowhere() -> None:
    result = diagnosed(steps=2, relative_step=0.8)  # 0.5, 0.58: the shell is never met, but by random points perhaps
    assert check(result, 8).k == 0
    letters = np.array(list(result.epsilons[0].felled_by.letters))
    assert not (letters == "a").any()


def follow(
    trace: Trace, surface: WrappedModel, asked: list[Tensor], images: Tensor, labels: Tensor, **budget: Any
) -> None:
    budget = {"norm": "linf", "epsilon": 0.1, **budget}
    with trace.watching(surface, np.array([7, 9]), images, labels, **budget):
        for points in asked:
            surface(points)


def test_a_trace_notes_every_point_and_the_first_suspect_within_the_budget() -> None:
    surface = WrappedModel(Classifier(Shell(), n_classes=2))
    images, labels = images_at(0.5, 2), torch.zeros(2, dtype=torch.long)
    far = images.clone()
    far[1, 0, 1, 1] = 0.9  # fools, but lies beyond the budget
    far[1, 0, 0, 0] = 0.54
    first, second = images_at(0.53, 2), images_at(0.55, 2)
    trace = Trace()
    follow(trace, surface, [images, far, first, second], images, labels)
    assert sorted(trace.losses) == [7, 9]
    assert [len(losses) for losses in trace.losses.values()] == [4, 4]
    expected = nn.functional.cross_entropy(Shell()(first), labels, reduction="none")
    assert [trace.losses[7][2], trace.losses[9][2]] == pytest.approx(expected.tolist())
    assert torch.equal(trace.suspects[7], first[0])
    assert torch.equal(trace.suspects[9], first[1]), "the point beyond the budget is no suspect"
    # Once left, the surface is watched no more, and what was noted is a copy.
    first.fill_(0.0)
    surface(second)
    assert len(trace.losses[7]) == 4
    assert float(trace.suspects[7][0, 0, 0]) == pytest.approx(0.53)


def test_a_tie_and_a_failure_are_suspects() -> None:
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = torch.zeros(len(images), 2)
            logits[1, 0] = torch.nan
            return logits + 0 * images.flatten(1)[:, :1]

    images, labels = images_at(0.5, 2), torch.zeros(2, dtype=torch.long)
    trace = Trace()
    follow(trace, WrappedModel(Classifier(Odd(), n_classes=2)), [images], images, labels)
    assert sorted(trace.suspects) == [7, 9]


def test_a_trace_stops_watching_where_the_attack_raises() -> None:
    surface = WrappedModel(Classifier(Shell(), n_classes=2))
    images, labels = images_at(0.5, 2), torch.zeros(2, dtype=torch.long)
    trace = Trace()
    with (
        pytest.raises(ZeroDivisionError),
        trace.watching(surface, np.array([7, 9]), images, labels, norm="linf", epsilon=0.1),
    ):
        raise ZeroDivisionError
    surface(images)
    assert trace.losses == {}


def test_logits_as_large_as_can_be_leave_numbers_that_a_result_can_hold() -> None:
    class Huge(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            pixel = images.flatten(1)[:, :1]
            return torch.cat([3e38 * (0.54 - pixel).sign(), -3e38 * (0.54 - pixel).sign()], dim=1) + 0 * pixel

    images, labels = images_at(0.5, 2), torch.zeros(2, dtype=torch.long)
    trace = Trace()
    follow(trace, WrappedModel(Classifier(Huge(), n_classes=2)), [images, images_at(0.6, 2)], images, labels)
    assert np.isfinite(trace.median_losses()).all()
    assert np.isfinite(trace.unsettled()).all()
