"""Controls: each is caught by what is meant for it, on a small net, and does what it says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from deceptive_models import Control, RotatingFrame, controls, oracle
from pydantic import JsonValue
from small_model import fitted
from torch import Tensor, nn

import odebench
from odebench import Dataset, Slice, ThreatModel
from odebench.dataset import load_dataset
from odebench.evaluation.verdict import Judge
from odebench.model.classifier import Classifier
from odebench.model.ode import OdeNet
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import fixed_step
from odebench.result.schema import Result

NAMES = (
    "loose adjoint",
    "logits x 1e4",
    "probabilities",
    "robust in its batch",
    "dopri5 at 0.1",
    "3-bit input",
    "noisy field",
    "random step",
)
LINF = ThreatModel(norm="linf", epsilons=(0.1,))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def net(digits: Dataset) -> OdeNet:
    with seeded(0):
        module = OdeNet(
            image_shape=(1, 8, 8), n_classes=10, channels=8, stem="conv", horizon=1.0, solver=fixed_step(step=0.5)
        )
    found = fitted(module, digits, epochs=4)
    assert isinstance(found, OdeNet)
    return found


@pytest.fixture(scope="module")
def made(net: OdeNet) -> Mapping[str, Control]:
    return {control.name: control for control in controls(net)}


def logits(module: nn.Module, images: Tensor) -> Tensor:
    classifier = Classifier(module, n_classes=10)
    with torch.no_grad(), classifier.frozen():
        return classifier.answer(images.clone()).logits


def diagnosed(
    module: nn.Module, digits: Dataset, n: int, attack: str = "quick-diagnosis", **parameters: JsonValue
) -> Result:
    (result,) = odebench.evaluate(
        module,
        digits,
        attacks=[attack],
        parameters={attack: parameters},
        threat_model=LINF,
        images=Slice(n=n, chunk=n),
    )
    return result


def flagged(result: Result) -> set[int]:
    return {check.id for check in result.checks if check.status == "flag"}


QUICK = ("logits x 1e4", "probabilities", "robust in its batch")
"""Caught in a second; what sees the others is tested beside each check, too."""


def test_there_is_a_control_for_every_deceit(made: Mapping[str, Control]) -> None:
    assert tuple(made) == NAMES
    assert {number for control in made.values() for number in control.meant} == {1, 2, 3, 9, 15, 16, 17}


@pytest.mark.usefixtures("few_passes")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_a_control_is_caught(name: str, made: Mapping[str, Control], digits: Dataset) -> None:
    control = made[name]
    # Checks 2 and 15 are made by every attack, and a diagnosis of a model that is asked many times or alone takes long.
    attack = "fgsm" if control.randomised or control.meant == (15,) else "quick-diagnosis"
    few = control.randomised or name == "dopri5 at 0.1"
    result = diagnosed(control.module, digits, 10 if few else 20, attack)
    assert flagged(result) & set(control.meant), name


def test_the_honest_twin_is_not(net: OdeNet, digits: Dataset) -> None:
    assert not flagged(diagnosed(net, digits, 50))


def test_grey_betrays_saturated_logits(made: Mapping[str, Control], digits: Dataset) -> None:
    assert 9 in flagged(diagnosed(made["logits x 1e4"].module, digits, 10, "diagnosis", steps=3))


@pytest.mark.parametrize("name", ["loose adjoint", "logits x 1e4", "probabilities"])
def test_some_controls_have_the_function_of_their_twin(
    name: str, made: Mapping[str, Control], net: OdeNet, digits: Dataset
) -> None:
    images = digits.test.images[:50]
    assert made[name].preserves_function
    assert torch.equal(logits(made[name].module, images).argmax(1), logits(net, images).argmax(1))


def test_alone_the_batch_defence_is_its_twin(made: Mapping[str, Control], net: OdeNet, digits: Dataset) -> None:
    module = made["robust in its batch"].module
    for row in range(5):
        one = digits.test.images[row : row + 1]
        assert torch.allclose(logits(module, one), logits(net, one), atol=1e-5)
    assert not torch.allclose(logits(module, digits.test.images[:5]), logits(net, digits.test.images[:5]), atol=1e-2)


def test_the_turning_frame_has_the_same_trajectories(net: OdeNet, digits: Dataset) -> None:
    images, fine = digits.test.images[:10], fixed_step(step=0.01)
    turning = RotatingFrame(net, fine)
    still = Classifier(net, n_classes=10, solver=fixed_step(step=0.05))
    with torch.no_grad():
        assert torch.allclose(logits(turning, images), still.answer(images).logits, atol=1e-3)
    coarse = RotatingFrame(net, fixed_step(step=0.5))
    assert not torch.allclose(logits(coarse, images), logits(net, images), atol=0.1)


def test_the_straight_through_stand_in_has_the_same_values_and_a_gradient(
    made: Mapping[str, Control], digits: Dataset
) -> None:
    control, points = made["3-bit input"], digits.test.images[:5].clone().requires_grad_()
    with torch.no_grad():
        assert torch.allclose(control.module(points), control.stand_in(points), atol=1e-6)
    (gradient,) = torch.autograd.grad(control.stand_in(points).sum(), points)
    assert gradient.abs().sum() > 0


def test_an_attacker_who_knows_beats_one_who_does_not(made: Mapping[str, Control], digits: Dataset) -> None:
    control, images, labels = made["3-bit input"], digits.test.images[:50], digits.test.labels[:50]
    judge = Judge(Classifier(control.module, n_classes=10))
    with judge.classifier.frozen():
        correct = torch.from_numpy(judge.clean(images, labels) == "r")
        known = oracle(
            judge, control.stand_in, images[correct], labels[correct], norm="linf", epsilon=0.1, steps=20, restarts=1
        )
    blind = diagnosed(control.module, digits, 50, "pgd").epsilons[0].outcomes
    assert (known == "f").sum() > blind.count("f") + 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_oracle_stays_in_its_ball_and_leaves_the_fallen_alone(norm: str, net: OdeNet, digits: Dataset) -> None:
    images, labels = digits.test.images[:20], digits.test.labels[:20]
    epsilon = 0.05 if norm == "linf" else 0.3

    class Watched(Judge):
        fell = np.zeros(20, dtype=bool)

        def candidates(self, clean: Tensor, *arguments: object, **budget: object):  # type: ignore[no-untyped-def]
            points = arguments[1]
            assert isinstance(points, Tensor)
            assert (distance(clean, points, norm=norm) <= epsilon + ROUNDING).all()
            assert 0 <= points.min() <= points.max() <= 1
            rows = [int((images == one).flatten(1).all(1).nonzero()[0, 0]) for one in clean]
            assert not self.fell[rows].any()
            verdict = super().candidates(clean, *arguments, **budget)  # type: ignore[arg-type]
            self.fell[[row for row, letter in zip(rows, verdict.letters, strict=True) if letter != "r"]] = True
            return verdict

    judge = Watched(Classifier(net, n_classes=10))
    letters = oracle(judge, net, images, labels, norm=norm, epsilon=epsilon, steps=20, restarts=2)
    assert (letters != "r").tolist() == judge.fell.tolist()
    assert judge.fell.sum() > 0
