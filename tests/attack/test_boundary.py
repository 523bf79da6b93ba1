"""The boundary attack: exact against linear models, and not misled by logits that lead away from the boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_model import fitted, judged, outcomes
from strangers_masks import Decoy, Terrace, TurnedOver
from torch import Tensor, nn

from odebench.attack.boundary import boundary
from odebench.attack.early_stopping import strictly_correct
from odebench.attack.wrapped_model import WrappedModel
from odebench.dataset import Dataset, load_dataset
from odebench.errors import UsageError
from odebench.model.classifier import Classifier
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.seeding import seeded

N = 40
GIVEN: dict[str, Any] = {"seed": 1, "steps": 12, "starts": 5, "halvings": 14, "drop_far": True, "differences": False}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def net(digits: Dataset) -> nn.Module:
    with seeded(0):
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    return fitted(module, digits).requires_grad_(False)


def wrapped(module: nn.Module, n_classes: int = 10) -> WrappedModel:
    return WrappedModel(Classifier(module.eval().requires_grad_(False), n_classes=n_classes))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_against_a_linear_model_it_finds_the_least_distance(norm: str) -> None:
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        images, train = (0.4 + 0.2 * torch.rand(20, 1, 4, 4) for _ in range(2))
    with torch.no_grad():  # the boundary goes through plain grey
        net[1].bias.copy_(-net[1].weight.sum(1) / 2)  # type: ignore[operator,union-attr]
    model = wrapped(net, 2)
    with torch.no_grad():
        logits = model(images)
    labels, margin = logits.argmax(1), (logits[:, 0] - logits[:, 1]).abs()
    weight = net[1].weight[0] - net[1].weight[1]  # type: ignore[union-attr]
    least = margin / (weight.abs().sum() if norm == "linf" else weight.norm())
    for index in range(len(images)):
        own, label = images[index : index + 1], labels[index : index + 1]
        for share, falls in ((1.05, True), (0.95, False)):
            epsilon = float(share * least[index])
            found = boundary(model, own, label, norm=norm, epsilon=epsilon, train_images=train, **GIVEN)
            assert distance(own, found, norm=norm) <= epsilon + ROUNDING
            assert bool(~strictly_correct(model(found), label)) == falls


def standing(module: nn.Module, digits: Dataset, attack: str, norm: str, **given: Any) -> int:
    images, labels = digits.test.images[:N], digits.test.labels[:N]
    epsilon = 0.1 if norm == "linf" else 0.5
    result = judged(module, images, labels, attack=attack, norm=norm, epsilons=(epsilon,), **given)
    return outcomes(result).count("r")


@pytest.mark.parametrize(("mask", "norm"), [(TurnedOver, "linf"), (Terrace, "l2"), (Decoy, "linf")])
def test_slopes_that_lead_away_from_the_boundary_do_not_mislead_it(
    mask: type[nn.Module], norm: str, net: nn.Module, digits: Dataset
) -> None:
    assert digits.train is not None
    margin = {"steps": 20, "targets": 9, "restarts": 1}
    honest = standing(net, digits, "pgd-margin", norm, **margin)
    module = mask(net)
    assert standing(module, digits, "pgd-margin", norm, **margin) > honest + 5
    assert standing(module, digits, "boundary", norm, train_images=digits.train.images) <= honest + 2


class Backwards(nn.Module):
    """A model whose gradient points the other way."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(2 * images.detach() - images)
        return logits


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_differences_go_where_false_gradients_do_not(norm: str, net: nn.Module, digits: Dataset) -> None:
    assert digits.train is not None
    honest = standing(net, digits, "boundary", norm, train_images=digits.train.images)
    false, by_differences = (
        standing(Backwards(net), digits, "boundary", norm, train_images=digits.train.images, differences=differences)
        for differences in (False, True)
    )
    assert false > honest + 5
    assert by_differences <= honest + 2


def test_an_image_gets_the_same_candidate_whatever_stands_beside_it(net: nn.Module, digits: Dataset) -> None:
    assert digits.train is not None
    images, labels, train = digits.test.images[:6], digits.test.labels[:6], digits.train.images[:300]
    given = GIVEN | {"norm": "linf", "epsilon": 0.05, "train_images": train}
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    whole = boundary(wrapped(net), images, labels, **given)
    parts = [boundary(wrapped(net), images[part], labels[part], **given) for part in (slice(0, 2), slice(2, 6))]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]


def test_an_image_that_fell_is_left_alone(net: nn.Module, digits: Dataset) -> None:
    assert digits.train is not None
    images, labels = digits.test.images[:6], digits.test.labels[:6]
    asked: list[int] = []

    def all_fall(rows: Tensor, candidates: Tensor) -> Tensor:
        asked.append(len(rows))
        return torch.ones(len(rows), dtype=torch.bool)

    given = GIVEN | {"norm": "linf", "epsilon": 0.05, "train_images": digits.train.images[:300]}
    boundary(wrapped(net), images, labels, fallen=all_fall, **given)
    assert asked == [6]


def test_a_model_that_knows_one_class_alone_leaves_the_images_as_they_are(digits: Dataset) -> None:
    assert digits.train is not None
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(net[1].weight)  # type: ignore[arg-type]
    nn.init.constant_(net[1].bias[3:4], 1.0)  # type: ignore[index]
    images, labels = digits.test.images[:4], torch.full((4,), 3)
    given = GIVEN | {"norm": "l2", "epsilon": 0.5, "train_images": digits.train.images[:200]}
    assert torch.equal(boundary(wrapped(net), images, labels, **given), images)


def test_other_train_images_are_asked_about_anew(net: nn.Module, digits: Dataset) -> None:
    assert digits.train is not None
    images, labels, model = digits.test.images[:6], digits.test.labels[:6], wrapped(net)
    for train in (digits.train.images[:300], digits.train.images[300:400], digits.train.images[400:500]):
        given = GIVEN | {"norm": "linf", "epsilon": 0.05, "train_images": train}
        found = boundary(model, images, labels, **given)
        assert torch.equal(found, boundary(wrapped(net), images, labels, **given))


def test_it_needs_train_images(net: nn.Module, digits: Dataset) -> None:
    given = GIVEN | {"norm": "l2", "epsilon": 0.5, "train_images": None}
    with pytest.raises(UsageError, match="boundary needs train images to begin at"):
        boundary(wrapped(net), digits.test.images[:2], digits.test.labels[:2], **given)


def test_points_that_stay_far_away_are_not_followed(net: nn.Module, digits: Dataset) -> None:
    images, labels = digits.test.images[:8], digits.test.labels[:8]

    def asked(epsilon: float, *, steps: int, drop_far: bool = True) -> int:
        model, given = wrapped(net), GIVEN | {"steps": steps, "drop_far": drop_far}
        boundary(model, images, labels, norm="linf", epsilon=epsilon, train_images=digits.train.images, **given)
        return model.forward_images

    assert asked(1e-6, steps=12) < 1.2 * asked(1e-6, steps=3)
    assert asked(0.1, steps=12) > 1.5 * asked(0.1, steps=3)
    assert asked(1e-6, steps=12, drop_far=False) > 2 * asked(1e-6, steps=3)
