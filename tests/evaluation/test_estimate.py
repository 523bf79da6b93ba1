"""What is told of the time of an attack before it begins."""

from __future__ import annotations

import time

import torch
from small_model import Told, judged, linear
from torch import Tensor, nn

from odebench.attack.builtin import BOUNDARY, PGD
from odebench.attack.definition import Stage
from odebench.dataset import Split
from odebench.evaluation.estimate import estimate
from odebench.evaluation.preflight import run_preflight
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import seeded

N, SECONDS = 40, 0.002


class SharedStep(nn.Module):
    """Answers about a batch as a solver does that shares one step size, and takes a while to go backward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(10)

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            time.sleep(SECONDS)
        logits: Tensor = self.inner(images)
        return logits * (1 + 0.1 * images.mean())


def test_a_model_whose_answers_depend_on_the_batch_is_timed_image_by_image() -> None:
    with seeded(0):
        images = torch.rand(N, 1, 8, 8)
    module, told = SharedStep(), Told()
    labels = module(images).argmax(1)
    evaluation = judged(linear(10), images, labels, attack="fgsm", chunk=N).evaluation
    classifier = Classifier(module, n_classes=10)
    found = run_preflight(evaluation, classifier, Split(images, labels), handed_over=False, progress=told)
    assert found.alone
    assert found.slowest >= N * SECONDS
    assert told.lines == [
        "small: answers depend on the batch, so every image is attacked and judged by itself, which takes longer"
    ]


def test_checks_of_a_model_that_is_asked_alone_take_fewer_images() -> None:
    stages = [Stage("pgd", PGD, PGD.complete({"steps": 10}))]

    def told(*, alone: bool, checks: bool = True) -> tuple[float, float]:
        found = estimate(stages, chunk=50, chunks=2, epsilons=3, gradient=1.0, checks=checks, alone=alone)
        return found.most, found.checks

    assert told(alone=True)[0] == told(alone=False)[0] == 60.0
    assert told(alone=False, checks=False)[1] == 0
    assert told(alone=True)[1] < told(alone=False)[1] / 2


def test_a_step_along_the_boundary_takes_its_halvings_and_differences() -> None:
    def told(*names: str, **given: bool | int) -> float:
        stages = [Stage(name, BOUNDARY, BOUNDARY.complete({"steps": 10, "starts": 2, **given})) for name in names]
        return estimate(stages, chunk=50, chunks=1, epsilons=1, gradient=1.0, checks=False, alone=False).usual

    assert told("boundary", halvings=6) == 0.6 * 20 * (1 + 6 / 3) / 2
    assert told("boundary", halvings=6, differences=True) > 12 * told("boundary", halvings=6)
    assert told("one", "other") < 2 * told("one")  # those that fell are not attacked again
