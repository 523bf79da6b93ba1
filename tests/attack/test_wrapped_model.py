"""The random numbers of a model under attack are its own, and its gradients are noted."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from small_model import grey_images, linear, predicted
from torch import Tensor, nn

from odebench.attack.autoattack import noise, square
from odebench.attack.received import Received
from odebench.attack.spsa import spsa
from odebench.attack.wrapped_model import WrappedModel
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import seeded


class Seeding(nn.Module):
    """A model that seeds every generator whenever it is asked, so that others draw the same numbers each time."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        logits: Tensor = self.inner(images)
        return logits


class Drawing(nn.Module):
    """A model that adds random numbers of torch, numpy and Python, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[float, float, float]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.drawn.append((float(torch.rand(())), float(np.random.rand()), random.random()))
        return images.flatten(1)[:, :5] + self.drawn[-1][0]


def wrapped(module: nn.Module) -> WrappedModel:
    return WrappedModel(Classifier(module.eval().requires_grad_(False), n_classes=5))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("attack", "given"),
    [
        (square, {"queries": 60}),
        (noise, {"draws": 10}),
        (spsa, {"steps": 5, "targets": 2, "directions": 8}),
    ],
)
def test_a_model_that_seeds_the_generators_blinds_no_attack(attack: Any, given: dict[str, int], norm: str) -> None:
    model, images = linear(5), grey_images(12)
    labels = predicted(model, images)
    epsilon = {"linf": 0.03, "l2": 0.2}[norm]
    honest, found = (
        attack(wrapped(module), images, labels, norm=norm, epsilon=epsilon, seed=3, **given)
        for module in (model, Seeding(model))
    )
    assert torch.equal(honest, found)
    assert (predicted(model, found) != labels).any()


def test_a_model_draws_others_at_each_call_and_the_same_again_from_the_same_seed() -> None:
    images, drawn = grey_images(2), []
    for seed in (1, 1, 2):
        model = Drawing()
        asked = wrapped(model)
        with seeded(seed):
            own = torch.rand(3)
            for _ in range(3):
                asked(images)
            assert not torch.equal(torch.rand(3), own)
        drawn.append(model.drawn)
    assert drawn[0] == drawn[1]
    for kind in range(3):
        assert len({draw[kind] for draws in drawn[1:] for draw in draws}) == 6


def test_an_attack_draws_what_it_would_draw_without_a_model() -> None:
    images = grey_images(2)
    with seeded(4):
        expected = torch.rand(3), np.random.rand(), random.random()
    with seeded(4):
        asked = wrapped(Drawing())
        asked(images)
        found = torch.rand(3), np.random.rand(), random.random()
    assert torch.equal(found[0], expected[0])
    assert found[1:] == expected[1:]
    assert asked.classifier.module.drawn[0][0] not in expected[0].tolist()


def test_a_model_of_several_passes_draws_anew_in_each() -> None:
    model = Drawing()
    WrappedModel(Classifier(model, n_classes=5), passes=4)(grey_images(1))
    assert len({draw[0] for draw in model.drawn}) == 4


def test_a_model_notes_the_gradient_that_it_gives() -> None:
    module = linear(5)
    asked, images = wrapped(module), grey_images(3).requires_grad_()
    asked.received = Received()
    asked(images)[:, 2].sum().backward()
    assert len(asked.received.kept) == 3
    for one, image in zip(asked.received.kept, images.detach(), strict=True):
        assert torch.equal(one.image, image)
        assert torch.equal(one.cotangent, torch.eye(5)[2])
        assert torch.allclose(one.gradient.flatten(), module.weight[2])
