"""A model that looks its answers up in the test images is told from one that has learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from real_entry import trained
from torch import Tensor, nn

from odebench.dataset import Dataset, load_dataset
from odebench.dataset.base import Split
from odebench.evaluation.checks.memory import memorised_images
from odebench.evaluation.verdict import Judge
from odebench.model.classifier import Classifier
from odebench.result.schema import Check


class Neighbours(nn.Module):
    """The control: classes by the nearest of some images, with a gradient that leads somewhere."""

    def __init__(self, *known: Split, near: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.points = torch.cat([one.images.flatten(1) for one in known])
        self.labels = torch.cat([one.labels for one in known])
        self.near = near or (lambda images, points: -20 * torch.cdist(images, points) ** 2)

    def forward(self, images: Tensor) -> Tensor:
        near = self.near(images.flatten(1), self.points)
        return torch.stack([near[:, self.labels == label].logsumexp(1) for label in range(10)], 1)


def by_product(images: Tensor, points: Tensor) -> Tensor:
    """The square distance without what is the same for all classes: no peak at a stored image."""
    return 40 * images @ points.T - 20 * (points**2).sum(1)


def in_features(images: Tensor, points: Tensor) -> Tensor:
    """The square distance of random features: no gradient that is parallel to a difference of images."""
    weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    return -10 * torch.cdist((images @ weights).tanh(), (points @ weights).tanh()) ** 2


def honest() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    net.load_state_dict(dict(zip(net.state_dict(), trained().values(), strict=True)))
    return net


def check(module: nn.Module, data: Dataset) -> Check:
    judge = Judge(Classifier(module.eval(), n_classes=10))
    return memorised_images(judge, data.test, data.validation, train=data.train)


def test_neighbours_among_test_images_are_flagged_and_others_are_not() -> None:
    data = load_dataset("digits")
    assert data.train is not None
    caught, learnt, of_train = (
        check(Neighbours(data.test), data),
        check(honest(), data),
        check(Neighbours(data.train), data),
    )
    assert (caught.id, caught.name, caught.status, caught.speaks_of) == (22, "memorised images", "flag", "model")
    assert caught.figure is not None
    assert caught.figure > 0.02
    assert (learnt.status, of_train.status) == ("pass", "pass")
    assert set(caught.evidence["gaps"]) == {"as they are", "shifted", "0.1", "0.2", "0.3", "0.4"}  # type: ignore[arg-type]


@pytest.mark.parametrize("near", [None, by_product, in_features])
def test_neighbours_among_test_and_validation_images_leave_traces(
    near: Callable[[Tensor, Tensor], Tensor] | None,
) -> None:
    data = load_dataset("digits")
    assert data.train is not None
    assert data.validation is not None
    both = check(Neighbours(data.test, data.validation, near=near), data)
    assert (both.status, both.threshold) == ("flag", 0.25)
    assert "at which it answers by its distance to stored images" in both.why
    traces: Any = both.evidence["traces"]
    assert {name: found > 50 for name, found in traces.items()} == {
        "peaks": near is not by_product,
        "pointers": near is not in_features,
    }
    of_train = check(Neighbours(data.train, near=near), data)
    assert of_train.status == "pass"
    assert max(of_train.evidence["traces"].values()) <= 2  # type: ignore[union-attr]


def test_without_validation_images_nothing_can_be_said() -> None:
    data = load_dataset("digits")
    found = memorised_images(Judge(Classifier(honest(), n_classes=10)), data.test, None)
    assert (found.status, found.why) == ("skipped", "there are no validation images")
