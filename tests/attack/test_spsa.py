"""Gradients estimated from logits: what they are worth, and what falls to them that a false gradient hides."""

from __future__ import annotations

import pytest
import torch
from small_model import grey_images, judged, linear, predicted, smallest_radius
from torch import Tensor, nn

from odebench.attack.spsa import Estimated, spsa
from odebench.attack.wrapped_model import WrappedModel
from odebench.model.classifier import Classifier

PIXELS = 64


class Bent(nn.Module):
    """A smooth function of the images that is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner((3 * images).sin())
        return logits


class Masked(Bent):
    """The same logits with a gradient that leads back."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(2 * images.detach() - images)


def surface_of(module: nn.Module) -> WrappedModel:
    return WrappedModel(Classifier(module.eval().requires_grad_(False), n_classes=5))


def gradient(surface: nn.Module, images: Tensor) -> Tensor:
    points = images.clone().requires_grad_()
    logits = surface(points)
    loss = (logits[:, 0] - logits[:, 1]).sum()
    (found,) = torch.autograd.grad(loss, points)
    return found.flatten(1)


def cosines(directions: int, estimates: int = 1) -> Tensor:
    """Of the mean of some estimates on the masked surface with the gradient of the honest one, an image."""
    images, surface = grey_images(6), surface_of(Masked())
    torch.manual_seed(0)
    asked = Estimated(surface, directions=directions, reach=1e-3)
    found = torch.stack([gradient(asked, images) for _ in range(estimates)]).mean(0)
    return torch.nn.functional.cosine_similarity(found, gradient(surface_of(Bent()), images))


def test_as_many_directions_as_pixels_give_the_whole_gradient() -> None:
    assert (cosines(PIXELS) > 0.999).all()
    images = grey_images(6)
    whole = gradient(Estimated(surface_of(Masked()), directions=PIXELS, reach=1e-3), images)
    torch.testing.assert_close(whole, gradient(surface_of(Bent()), images), rtol=2e-2, atol=2e-3)


def test_fewer_directions_give_a_part_of_it_and_the_whole_in_the_mean() -> None:
    # q of d orthonormal directions hold q/d of the squared length.
    some = cosines(16)
    assert some.mean() == pytest.approx((16 / PIXELS) ** 0.5, abs=0.15)
    assert (cosines(16, estimates=60) > 0.9).all()


def test_the_length_of_an_estimate_does_not_depend_on_what_is_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, surface = grey_images(6), surface_of(Bent())
    found = []
    for at_once in (1, 50, 10_000):
        monkeypatch.setattr("odebench.attack.spsa.PASS_IMAGES", at_once)
        torch.manual_seed(3)
        found.append(gradient(Estimated(surface, directions=8, reach=1e-3), images))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[0], found[2], rtol=1e-3, atol=1e-4)


def test_what_is_asked_is_counted() -> None:
    surface = surface_of(Bent())
    gradient(Estimated(surface, directions=8, reach=1e-3), grey_images(6))
    assert surface.forward_images == 6 * (1 + 2 * 8)
    assert surface.backward_images == 0


def test_the_cross_entropy_is_ascended_for_twice_the_steps_and_then_each_target_for_the_steps() -> None:
    images, surface = grey_images(6), surface_of(Bent())
    labels = predicted(Bent(), images)
    budget = {"steps": 5, "targets": 1, "directions": 4}
    spsa(surface, images, labels, norm="linf", epsilon=1e-4, seed=1, **budget)
    differences = (2 * 5 + 5) * 2 * 4
    assert 0 <= surface.forward_images / 6 - differences < 40, "a few logits a step beside the differences"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_false_gradient_hides_nothing_from_it(norm: str) -> None:
    model, images = linear(5), grey_images(40)

    class Back(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            logits: Tensor = model(2 * points.detach() - points)
            return logits

    labels = predicted(model, images)
    epsilon = {"linf": 0.02, "l2": 0.15}[norm]
    found = spsa(
        surface_of(Back()), images, labels, norm=norm, epsilon=epsilon, seed=1, steps=40, targets=4, directions=64
    )
    near = smallest_radius(model, images, labels, norm=norm) < 0.95 * epsilon
    assert near.sum() > 5
    assert (predicted(model, found) != labels)[near].all()


@pytest.mark.usefixtures("short_stages")
def test_standard_ends_with_it_where_a_gradient_could_not_be_confirmed() -> None:
    images = grey_images(20)
    labels = predicted(Bent(), images)

    def names(module: nn.Module) -> list[str]:
        result = judged(
            module,
            images,
            labels,
            n_classes=5,
            attack="worst-case",
            effort="standard",
            epsilons=(1e-4,),
            chunk=20,
        )
        return list(result.epsilons[0].felled_by.legend.values())

    assert names(Masked())[-1] == "spsa 3x50 at 0.0001"
    assert not any("spsa" in name for name in names(Bent()))
