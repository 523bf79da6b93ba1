"""Models whose gradient is hidden fall to attacks that do not follow it blindly: smoothed, and by a substitute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_model import fitted, judged, outcomes
from torch import Tensor, nn

from odebench.attack.smoothed import Smoothed
from odebench.attack.substitute import substitute
from odebench.attack.wrapped_model import WrappedModel
from odebench.dataset import Dataset, load_dataset
from odebench.errors import UsageError
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import seeded

N = 40
EPSILON = 0.1


class Rippled(nn.Module):
    """Logits with a ripple in each pixel that is too small to change a label and steep enough to rule the gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images + 1e-3 * (images * 1e4).sin())
        return logits


class Staircase(nn.Module):
    """Images rounded to 5 bits: the gradient is zero everywhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner((images * 31).round() / 31)
        return logits


class Detached(nn.Module):
    """Logits that are cut off from the images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images.detach())
        return logits


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def net(digits: Dataset) -> nn.Module:
    with seeded(0):
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    return fitted(module, digits).requires_grad_(False)


def standing(module: nn.Module, digits: Dataset, attack: str, *, norm: str = "linf", **given: Any) -> int:
    images, labels = digits.test.images[:N], digits.test.labels[:N]
    epsilon = EPSILON if norm == "linf" else 5 * EPSILON
    result = judged(module, images, labels, attack=attack, norm=norm, epsilons=(epsilon,), **given)
    return outcomes(result).count("r")


MARGIN = {"steps": 20, "targets": 3, "restarts": 1}
SMOOTHED = {"steps": 15, "targets": 9, "draws": 16, "directions": 64}


@pytest.mark.parametrize(("mask", "norm"), [(Rippled, "linf"), (Staircase, "linf"), (Detached, "l2")])
def test_a_mask_falls_to_the_smoothed_gradient(
    mask: type[nn.Module], norm: str, net: nn.Module, digits: Dataset
) -> None:
    honest = standing(net, digits, "pgd-margin", norm=norm, **MARGIN)
    module = mask(net)  # type: ignore[call-arg]
    assert standing(module, digits, "pgd-margin", norm=norm, **MARGIN) > honest + 5
    assert standing(module, digits, "smoothed", norm=norm, **SMOOTHED) <= honest + 2


def test_the_mean_gradient_of_points_around_sees_through_a_ripple(net: nn.Module, digits: Dataset) -> None:
    points = 0.1 + 0.8 * torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with seeded(0), torch.enable_grad():
        asked = points.requires_grad_(True)
        true, own, mean = (
            torch.autograd.grad(seen(asked)[:, 3].sum(), asked)[0].flatten(1)
            for seen in (net, Rippled(net), Smoothed(wrapped(Rippled(net)), draws=100, reach=0.025))
        )
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(own, true).abs().mean() < 0.3
    assert cosine(mean, true).mean() > 0.6


def test_a_mask_falls_to_a_substitute(net: nn.Module, digits: Dataset) -> None:
    honest = standing(net, digits, "pgd-margin", **MARGIN)
    blind = standing(Detached(net), digits, "pgd-margin", **MARGIN)
    assert digits.train is not None
    fell = standing(Detached(net), digits, "substitute", train_images=digits.train.images[:600])
    assert blind == N
    assert fell < (honest + blind) / 2


def wrapped(module: nn.Module) -> WrappedModel:
    return WrappedModel(Classifier(module.eval().requires_grad_(False), n_classes=10))


def test_a_substitute_is_distilled_once_for_a_model_and_hangs_on_no_chunk(net: nn.Module, digits: Dataset) -> None:
    images, labels, train = digits.test.images[:6], digits.test.labels[:6], digits.train.images[:200]
    given: dict[str, Any] = {"norm": "linf", "epsilon": 0.1, "steps": 3, "targets": 2, "epochs": 3}
    given["train_images"] = train
    model = wrapped(Detached(net))
    states = torch.get_rng_state()
    first = substitute(model, images[:3], labels[:3], seed=1, **given)
    asked = model.forward_images
    assert asked >= 4 * len(train)
    second = substitute(model, images[3:], labels[3:], seed=2, **given)
    assert model.forward_images - asked < len(train)
    assert torch.equal(torch.get_rng_state(), states)
    # Another wrapper of the same weights, asked the other way round, gives the same candidates.
    other = wrapped(Detached(net))
    assert torch.equal(substitute(other, images[3:], labels[3:], seed=2, **given), second)
    assert torch.equal(substitute(other, images[:3], labels[:3], seed=1, **given), first)


def test_a_substitute_needs_train_images(net: nn.Module, digits: Dataset) -> None:
    images, labels = digits.test.images[:2], digits.test.labels[:2]
    given: dict[str, Any] = {"norm": "linf", "epsilon": 0.1, "steps": 3, "targets": 2, "epochs": 3}
    with pytest.raises(UsageError, match="substitute needs train images to distil the model on"):
        substitute(wrapped(net), images, labels, seed=1, train_images=None, **given)
