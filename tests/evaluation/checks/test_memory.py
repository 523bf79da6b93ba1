"""A model that looks its answers up in the test images is told from one that has learnt."""

from __future__ import annotations

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

    def __init__(self, known: Split) -> None:
        super().__init__()
        self.points, self.labels = known.images.flatten(1), known.labels

    def forward(self, images: Tensor) -> Tensor:
        near = -20 * torch.cdist(images.flatten(1), self.points) ** 2
        return torch.stack([near[:, self.labels == label].logsumexp(1) for label in range(10)], 1)


def honest() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    net.load_state_dict(dict(zip(net.state_dict(), trained().values(), strict=True)))
    return net


def check(module: nn.Module, data: Dataset) -> Check:
    return memorised_images(Judge(Classifier(module.eval(), n_classes=10)), data.test, data.validation)


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


def test_without_validation_images_nothing_can_be_said() -> None:
    data = load_dataset("digits")
    found = memorised_images(Judge(Classifier(honest(), n_classes=10)), data.test, None)
    assert (found.status, found.why) == ("skipped", "there are no validation images")
