"""Pixels whose gradient is exactly zero, at the corners of a clip, take that of a point nearby."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_model import clamp_is_flat_at_its_edge, grey_images, linear
from torch import Tensor, nn

from odebench.attack.wrapped_model import WrappedModel
from odebench.attack.zero_gradient import nearby
from odebench.model.classifier import Classifier

EPSILON = 0.1
CLIPS: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda images: images.clamp(0, 1),
    "clip further in": lambda images: images.clip(1e-3, 1 - 1e-3),
    "hardtanh": lambda images: nn.functional.hardtanh(images, 0.0, 1.0),
    "relu": torch.relu,
    "clamp_min": lambda images: images.clamp_min(0),
}


class Behind(nn.Module):
    """A linear model behind a function of its images."""

    def __init__(self, clip: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.clip = linear(10), clip

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(self.clip(images))
        return logits


def gradient(module: nn.Module, images: Tensor, *, scale: tuple[str, float] | None) -> Tensor:
    wrapped = WrappedModel(Classifier(module, n_classes=10))
    if scale is not None:
        wrapped.at_scale_of(*scale)
    points = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(
        nn.functional.cross_entropy(wrapped(points), torch.zeros(len(images)).long()), points
    )
    return found


def images_at_the_border() -> Tensor:
    images = grey_images(6)
    images[:, :, :3], images[:, :, 3:5] = 0.0, 1.0
    return images


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_a_clip_has_the_gradient_of_what_lies_behind_it(clip: Callable[[Tensor], Tensor], norm: str) -> None:
    images, honest = images_at_the_border(), linear(10)
    expected = gradient(honest, images, scale=None)
    before = gradient(Behind(clip), images, scale=None)
    after = gradient(Behind(clip), images, scale=(norm, EPSILON))
    assert (before == 0).any() or not clamp_is_flat_at_its_edge()
    assert (after[expected != 0] != 0).all()
    # The loss is asked a little further in, where its gradient is nearly the same.
    assert torch.nn.functional.cosine_similarity(after.flatten(1), expected.flatten(1)).min() > 0.999
    assert torch.equal(after[before != 0], before[before != 0])


def test_where_no_gradient_is_zero_nothing_is_asked_and_nothing_changes() -> None:
    images, honest = images_at_the_border(), linear(10)
    wrapped = WrappedModel(Classifier(honest, n_classes=10))
    wrapped.at_scale_of("linf", EPSILON)
    points = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(wrapped(points).logsumexp(1).sum(), points)
    plain = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(honest(plain).logsumexp(1).sum(), plain)
    assert torch.equal(found, expected)
    assert (wrapped.forward_images, wrapped.backward_images) == (len(images), len(images))


def test_only_images_with_such_pixels_are_asked_again() -> None:
    images = images_at_the_border()
    images[2:] = images[2:].clamp(0.1, 0.9)
    wrapped = WrappedModel(Classifier(Behind(CLIPS["hardtanh"]), n_classes=10))
    wrapped.at_scale_of("linf", EPSILON)
    points = images.clone().requires_grad_()
    torch.autograd.grad(wrapped(points).logsumexp(1).sum(), points)
    assert (wrapped.forward_images, wrapped.backward_images) == (len(images) + 2, len(images) + 2)


def test_a_loss_that_is_flat_in_the_logits_asks_nothing_again() -> None:
    wrapped = WrappedModel(Classifier(Behind(CLIPS["clamp"]), n_classes=10))
    wrapped.at_scale_of("linf", EPSILON)
    points = images_at_the_border().requires_grad_()
    (found,) = torch.autograd.grad((0 * wrapped(points)).sum(), points)
    assert not found.any()
    assert wrapped.forward_images == len(points)


@pytest.mark.parametrize(("norm", "length"), [("linf", EPSILON / 4), ("l2", EPSILON / 4 / 2)])
def test_points_nearby_lie_inside(norm: str, length: float) -> None:
    images = torch.tensor([0.0, 1.0, 0.3, 0.999]).reshape(1, 1, 2, 2)
    moved = nearby(images, torch.ones_like(images, dtype=torch.bool), norm=norm, epsilon=EPSILON)
    assert moved.flatten().tolist() == pytest.approx([length, 1 - length, 0.3 + length, 0.999 - length])
    still = nearby(images, torch.zeros_like(images, dtype=torch.bool), norm=norm, epsilon=EPSILON)
    assert torch.equal(still, images)
