"""Checks 20 and 21: does a gradient tell anything at the scale at which attacks move?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from masked_models import Ripple, RoundedLogits, Staircase
from small_model import grey_images, linear, predicted
from torch import Tensor, nn

from odebench.evaluation.checks.usefulness import IMAGES, scale_cosines, useful_gradient, zero_gradients
from odebench.model.classifier import Classifier
from odebench.result.schema import Check

EPSILON = 0.1


def asked(module: nn.Module) -> Classifier:
    return Classifier(module, n_classes=10)


def useful(module: nn.Module, *, norm: str = "linf", n: int = 8) -> Check:
    return useful_gradient(asked(module), grey_images(n), norm=norm, epsilon=EPSILON)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_smooth_model_has_a_useful_gradient(norm: str) -> None:
    check = useful(linear(10), norm=norm)
    assert (check.id, check.name, check.speaks_of, check.status) == (20, "useful gradient", "model", "pass")
    assert check.figure is not None
    assert check.figure > 0.95
    assert check.evidence == {"images": 8, "below": 0}


@pytest.mark.parametrize("mask", [Ripple, RoundedLogits, Staircase])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_true_gradient_that_leads_nowhere_is_flagged(mask: Callable[[nn.Module], nn.Module], norm: str) -> None:
    check = useful(mask(linear(10)), norm=norm)
    assert check.status == "flag"
    assert check.figure is not None
    assert check.figure < check.threshold == 0.7  # type: ignore[operator]


def test_a_plateau_is_flagged_and_a_model_that_is_flat_everywhere_is_not() -> None:
    class Rounded(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = linear(10)((images * 7).round() / 7)
            return logits

    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.arange(10.0).expand(len(images), 10) + 0 * images.sum()

    assert useful(Rounded()).figure == 0
    images = grey_images(4)
    assert scale_cosines(asked(Constant()), images, norm="linf", epsilon=EPSILON).tolist() == [1.0] * 4


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e-3, 1e3, 1e12, 1e30])
def test_the_scale_of_the_logits_does_not_matter(factor: float) -> None:
    class Scaled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(images)
            return logits * factor

    assert useful(Scaled(linear(10))).status == "pass"
    assert useful(Scaled(Ripple(linear(10)))).status == "flag"


def test_a_model_that_is_judged_alone_is_asked_alone() -> None:
    class Alone(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            inner = linear(10) if len(images) > 1 else Ripple(linear(10))
            logits: Tensor = inner(images)
            return logits

    options = {"norm": "linf", "epsilon": EPSILON}
    assert useful_gradient(asked(Alone()), grey_images(4), **options).status == "pass"  # type: ignore[arg-type]
    assert useful_gradient(asked(Alone()), grey_images(4), alone=True, **options).status == "flag"  # type: ignore[arg-type]


def test_the_first_images_are_looked_at_if_there_are_any() -> None:
    assert useful(linear(10), n=40).evidence["images"] == IMAGES
    none = useful_gradient(asked(linear(10)), grey_images(4)[:0], norm="linf", epsilon=EPSILON)
    assert (none.status, none.why) == ("skipped", "no image is classified correctly")


def test_pixels_with_a_gradient_of_exactly_zero_are_counted_by_image_and_flag_nothing() -> None:
    class Clipped(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = linear(10)(nn.functional.hardtanh(images, 0.0, 1.0))
            return logits

    images = grey_images(4).clamp(0.2, 0.8)
    images[:2, :, 0] = 0.0
    labels = predicted(linear(10), images)
    found = zero_gradients(asked(Clipped()), images, labels, norm="linf", epsilon=EPSILON)
    assert (found.id, found.name, found.status, found.figure) == (21, "zero gradients", "pass", 0.5)
    assert found.evidence == {"images": 4, "share_of_pixels": pytest.approx(2 * 8 / (4 * 64))}
    honest = zero_gradients(asked(linear(10)), images, labels, norm="linf", epsilon=EPSILON)
    assert honest.figure == 0
    none = zero_gradients(asked(linear(10)), images[:0], labels[:0], norm="linf", epsilon=EPSILON)
    assert none.status == "skipped"
