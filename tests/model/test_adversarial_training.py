"""Adversarial images for a training: optima of linear models, losses by hand, and nothing disturbed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import Linear, grey_images, linear
from torch import Tensor, nn
from torch.nn import functional

from odebench.attack.foolbox import pgd
from odebench.attack.wrapped_model import WrappedModel
from odebench.dataset import Dataset, load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.model import training
from odebench.model.adversarial_training import NEARBY, adversarial_images
from odebench.model.classifier import Classifier
from odebench.model.definition import load_definition
from odebench.model.losses import distillation_loss, divergence
from odebench.numerics.projection import ROUNDING, distance
from odebench.protocol.recipe import Adversary

EPSILON, STEPS = 0.1, 7
KINDS = ("madry", "trades", "rslad")


def adversary(kind: str, **changes: Any) -> Adversary:
    fields = {"kind": kind, "epsilon": EPSILON, "steps": STEPS, "step": 2.5 * EPSILON / STEPS}
    return Adversary.model_validate(fields | changes)


def found(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    spec: Adversary,
    *,
    seed: int = 0,
    targets: Tensor | None = None,
) -> Tensor:
    """Adversarial images; a teacher who is not given is sure of the labels, among three classes."""
    generator = torch.Generator().manual_seed(seed)
    if spec.kind == "rslad" and targets is None:
        targets = 8.0 * functional.one_hot(labels, 3)
    return adversarial_images(module, images, labels, adversary=spec, generator=generator, targets=targets)


def by_hand(clean: Tensor, adversarial: Tensor) -> float:
    """KL(softmax(clean) || softmax(adversarial)), image by image, averaged over the images."""
    total = 0.0
    for z, y in zip(clean.double().tolist(), adversarial.double().tolist(), strict=True):
        p, q = ([math.exp(v) / sum(map(math.exp, row)) for v in row] for row in (z, y))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(clean)


# Divergence


@pytest.mark.parametrize("classes", [2, 10])
def test_the_divergence_is_that_of_trades_averaged_over_the_images(classes: int) -> None:
    torch.manual_seed(0)
    clean, other = 2 * torch.randn(5, classes), 2 * torch.randn(5, classes)
    assert float(divergence(clean, other)) == pytest.approx(by_hand(clean, other), rel=1e-5)
    assert by_hand(clean, other) != pytest.approx(by_hand(other, clean), rel=1e-2), "the direction matters"
    assert float(divergence(clean.repeat(3, 1), other.repeat(3, 1))) == pytest.approx(by_hand(clean, other), rel=1e-5)
    # classes that nobody believes in change nothing, where torch's default would divide by five
    absent = torch.full((5, 4 * classes), -1e4)
    wide = divergence(torch.cat([clean, absent], 1), torch.cat([other, absent], 1))
    torch.testing.assert_close(wide, divergence(clean, other))
    # what the authors' code computes: (1 / batch) KLDivLoss(size_average=False)(log_softmax(x'), softmax(x))
    summed = functional.kl_div(other.log_softmax(1), clean.softmax(1), reduction="sum")
    torch.testing.assert_close(divergence(clean, other), summed / 5)


def test_the_divergence_pulls_both_answers() -> None:
    clean, other = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    slopes = torch.autograd.grad(divergence(clean, other), (clean, other))
    torch.testing.assert_close(slopes[1], (other.softmax(1) - clean.softmax(1)) / 3)
    assert slopes[0].abs().sum() > 0


# The inner maximisation


def two_classes() -> tuple[Linear, Tensor, Tensor, Tensor]:
    """A linear model of two classes, images, labels, and the slope of the other class's lead, image by image."""
    model, images = linear(2, seed=4), grey_images(40)
    images[:10] = images[:10].round()  # corners of the range, where the ball is cut off
    labels = torch.arange(40) % 2
    slope = (model.weight[1 - labels] - model.weight[labels]).detach().reshape(images.shape)
    return model, images, labels, slope


def corner(images: Tensor, direction: Tensor) -> Tensor:
    return (images + EPSILON * direction.sign()).clamp(0, 1)


def test_madrys_maximisation_reaches_the_corner_that_is_best_for_a_linear_model() -> None:
    model, images, labels, slope = two_classes()
    for seed in range(3):
        torch.testing.assert_close(
            found(model, images, labels, adversary("madry"), seed=seed), corner(images, slope), rtol=0, atol=1e-7
        )


def test_trades_maximisation_reaches_a_corner_of_a_linear_model_and_asks_no_label() -> None:
    model, images, labels, slope = two_classes()
    corners = torch.stack([corner(images, slope), corner(images, -slope)])
    reached = found(model, images, labels, adversary("trades"))
    away = (corners - reached).flatten(2).abs().amax(2)
    assert (away.amin(0) <= 1e-7).all()
    assert set(away.argmin(0).tolist()) == {0, 1}, "the random start decides for one of the two"
    assert torch.equal(found(model, images, 1 - labels, adversary("trades")), reached)


def test_rslads_maximisation_leads_away_from_the_teachers_answer_and_asks_no_label() -> None:
    model, images, labels, slope = two_classes()
    teacher = 30.0 * functional.one_hot(1 - labels, 2)  # sure, and of the other class than the label
    reached = found(model, images, labels, adversary("rslad"), targets=teacher)
    torch.testing.assert_close(reached, corner(images, -slope), rtol=0, atol=1e-7)
    assert torch.equal(found(model, images, 1 - labels, adversary("rslad"), targets=teacher), reached)
    right = found(model, images, labels, adversary("rslad"), targets=teacher.flip(1))
    torch.testing.assert_close(right, corner(images, slope), rtol=0, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_are_those_of_a_hand_written_loop(kind: str, steps: int) -> None:
    model, images, labels = linear(4, seed=1).double(), grey_images(9).double(), torch.arange(9) % 4
    weight, bias = model.weight.detach(), model.bias.detach()

    def answer(x: Tensor) -> Tensor:
        return (x.flatten(1) @ weight.T + bias).softmax(1)

    generator, step = torch.Generator().manual_seed(3), 0.03
    teacher = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    if kind == "madry":
        x = images + EPSILON * (2 * torch.rand(images.shape, generator=generator) - 1)
        target = functional.one_hot(labels, 4).double()
    else:
        x = images + NEARBY * torch.randn(images.shape, generator=generator)
        target = answer(images) if kind == "trades" else teacher.softmax(1)
    for _ in range(steps):
        # the gradients by hand: of -log q_y, and of the sum of p log(p / q)
        x = x + step * ((answer(x) - target) @ weight).reshape(x.shape).sign()
        x = torch.minimum(torch.maximum(x, images - EPSILON), images + EPSILON).clamp(0, 1)
    reached = found(model, images, labels, adversary(kind, steps=steps, step=step), seed=3, targets=teacher)
    torch.testing.assert_close(reached, x, rtol=0, atol=1e-6)


def test_trades_and_rslad_start_a_thousandth_beside_the_image_and_madry_anywhere_in_the_ball() -> None:
    assert NEARBY == 1e-3
    images, labels = torch.full((200, 1, 8, 8), 0.5), torch.zeros(200, dtype=torch.int64)
    started: dict[str, Tensor] = {}
    for kind in KINDS:
        asked: list[Tensor] = []
        model = linear(3)
        model.register_forward_pre_hook(lambda _, given, asked=asked: asked.append(given[0].detach().clone()))
        found(model, images, labels, adversary(kind, steps=1))
        started[kind] = asked[-1] - images
    for kind in ("trades", "rslad"):
        assert float(started[kind].std()) == pytest.approx(1e-3, rel=0.05)
    assert float(started["madry"].abs().max()) == pytest.approx(EPSILON, rel=1e-2)
    assert float(started["madry"].std()) == pytest.approx(EPSILON / math.sqrt(3), rel=0.05)


@given(
    st.sampled_from(KINDS),
    st.floats(1e-3, 1),
    st.integers(1, 4),
    st.floats(1e-3, 10),
    st.lists(st.floats(0, 1, width=32), min_size=64, max_size=64),
    st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_adversarial_images_lie_in_the_ball_and_in_the_range(
    kind: str, epsilon: float, steps: int, step: float, pixels: list[float], seed: int
) -> None:
    images = torch.tensor(pixels).reshape(1, 1, 8, 8).repeat(3, 1, 1, 1)
    spec = adversary(kind, epsilon=epsilon, steps=steps, step=step)
    reached = found(linear(3, seed=seed), images, torch.arange(3), spec, seed=seed)
    assert (distance(images, reached, norm="linf") <= epsilon + ROUNDING).all()
    assert ((reached >= 0) & (reached <= 1)).all()


class Moody(Linear):
    """A linear model that remembers the mode it was asked in; one part of it stays in evaluation mode."""

    def __init__(self) -> None:
        whole = linear(3)
        super().__init__(whole.weight.detach(), whole.bias.detach())
        self.drop, self.still = nn.Dropout(0.5), nn.Dropout(0.5)
        self.asked: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(self.training)
        return super().forward(self.drop(images))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_the_generator_is_disturbed(kind: str) -> None:
    model, images, labels = Moody().train(), grey_images(6), torch.arange(6) % 3
    model.still.eval()
    kept, state = images.clone(), torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = found(model, images, labels, adversary(kind), seed=1)
    assert model.asked
    assert not any(model.asked), "asked in evaluation mode"
    assert (model.training, model.drop.training, model.still.training) == (True, True, False)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state), "no global random numbers"
    assert torch.equal(images, kept)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not first.requires_grad
    torch.rand(3)
    one_step = adversary(kind, steps=1, step=1e-3)
    again, other = (found(model, images, labels, one_step, seed=seed) for seed in (1, 2))
    assert torch.equal(found(model, images, labels, one_step, seed=1), again)
    assert not torch.equal(other, again)


def test_the_teachers_answers_are_neither_changed_nor_followed_back() -> None:
    model, images, labels = linear(3), grey_images(6), torch.arange(6) % 3
    teacher = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept = teacher.detach().clone()
    reached = found(model, images, labels, adversary("rslad"), targets=teacher)
    assert not reached.requires_grad
    assert teacher.grad is None
    assert torch.equal(teacher, kept)


def test_the_mode_comes_back_when_a_model_raises() -> None:
    model = Linear(torch.zeros(3, 5), torch.zeros(3)).train()
    with pytest.raises(RuntimeError):
        found(model, grey_images(2), torch.zeros(2, dtype=torch.int64), adversary("madry"))
    assert model.training


def test_gradients_that_were_there_stay() -> None:
    model = linear(3)
    model(grey_images(2)).sum().backward()
    kept = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    found(model, grey_images(2), torch.tensor([0, 1]), adversary("trades"))
    assert all(torch.equal(parameter.grad, before) for parameter, before in zip(model.parameters(), kept, strict=True))


# The outer losses


class TwoClasses(Linear):
    """The linear model above, as an architecture of a recipe."""

    def __init__(self, **_: Any) -> None:
        model = two_classes()[0]
        super().__init__(model.weight.detach(), model.bias.detach())


def training_of(
    spec: Adversary | None, tmp_path: Path, *, model: str = "ode-ablated", **changes: Any
) -> training._Training:
    """A training of the linear model with an adversary."""
    recipe = load_definition(model).recipe(DIGITS, changes=changes)
    recipe = recipe.model_copy(update={"architecture": f"{__name__}:TwoClasses", "adversary": spec})
    return training._Training(
        recipe, TwoClasses().train(), load_dataset("digits"), None, device="cpu", partial=tmp_path / "none.partial"
    )


def loss_of(
    spec: Adversary | None, tmp_path: Path, *, model: str = "ode-ablated", **changes: Any
) -> Callable[..., Tensor]:
    """The loss of one batch in a training with an adversary, with the teacher's logits if there is one."""
    run = training_of(spec, tmp_path, model=model, **changes)

    def loss(images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        _, found = run._ask(images, labels, targets)
        assert run.module.training
        return found.detach()

    return loss


def test_madrys_loss_is_that_of_the_corner(tmp_path: Path) -> None:
    model, images, labels, slope = two_classes()
    images, labels, slope = images[10:], labels[10:], slope[10:]  # where the ball lies within the range
    with torch.no_grad():
        logits = model(images)
    lead = (logits.gather(1, 1 - labels[:, None]) - logits.gather(1, labels[:, None])).flatten()
    worst = functional.softplus(lead + EPSILON * slope.flatten(1).abs().sum(1)).mean()
    torch.testing.assert_close(loss_of(adversary("madry"), tmp_path)(images, labels), worst, rtol=1e-5, atol=0)
    clean = loss_of(None, tmp_path)(images, labels)
    torch.testing.assert_close(clean, functional.softplus(lead).mean(), rtol=1e-5, atol=0)


def test_a_distilled_student_at_adversarial_images_follows_its_teachers_clean_answers(tmp_path: Path) -> None:
    model, images, labels, slope = two_classes()
    teacher = torch.randn(len(images), 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = distillation_loss(model(corner(images, slope)), labels, teacher, temperature=4.0, weight=0.9)
    loss = loss_of(adversary("madry"), tmp_path, model="kd-ode")(images, labels, teacher)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("name", ["ode-ablated", "kd-ode"])
def test_trades_loss_is_the_clean_one_and_beta_times_the_divergence(tmp_path: Path, beta: float, name: str) -> None:
    model, images, labels, _ = two_classes()
    teacher = torch.randn(len(images), 2, generator=torch.Generator().manual_seed(0)) if name == "kd-ode" else None
    spec = adversary("trades", beta=beta)
    clean = loss_of(None, tmp_path, model=name)(images, labels, teacher)
    # the training's generator begins with the train seed, which is 0
    reached = found(model, images, labels, spec, seed=0)
    with torch.no_grad():
        apart = by_hand(model(images), model(reached))
    assert apart > 0.01
    loss = loss_of(spec, tmp_path, model=name)(images, labels, teacher)
    assert float(loss) == pytest.approx(float(clean) + beta * apart, rel=1e-5)


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (2.0, 0.7)])
def test_rslads_loss_is_five_sixths_at_the_adversarial_image_and_one_at_the_clean_one(
    tmp_path: Path, temperature: float, weight: float
) -> None:
    model, images, labels, _ = two_classes()
    teacher = 2 * torch.randn(len(images), 2, generator=torch.Generator().manual_seed(0))
    spec = adversary("rslad")
    reached = found(model, images, labels, spec, seed=0, targets=teacher)
    with torch.no_grad():
        answers = [model(reached), model(images)]
    soft = [by_hand(teacher / temperature, answer / temperature) for answer in answers]
    hard = [float(functional.cross_entropy(answer, labels)) for answer in answers]
    far, near = (weight * temperature**2 * kl + (1 - weight) * ce for kl, ce in zip(soft, hard, strict=True))
    assert far > near + 0.01
    loss = loss_of(spec, tmp_path, model="kd-ode", temperature=temperature, weight=weight)(images, labels, teacher)
    assert float(loss) == pytest.approx(5 / 6 * far + 1 / 6 * near, rel=1e-5)


def test_rslads_gradient_is_that_of_its_loss_with_the_adversarial_images_held_fixed(tmp_path: Path) -> None:
    model, images, labels, _ = two_classes()
    teacher = 2 * torch.randn(len(images), 2, generator=torch.Generator().manual_seed(0))
    reached = found(model, images, labels, adversary("rslad"), seed=0, targets=teacher)
    run = training_of(adversary("rslad"), tmp_path, model="kd-ode", temperature=1.0, weight=1.0)
    run._ask(images, labels, teacher)[1].backward()
    away = [model(x).softmax(1).detach() - teacher.softmax(1) for x in (reached, images)]
    slope = (5 / 6 * away[0].T @ reached.flatten(1) + 1 / 6 * away[1].T @ images.flatten(1)) / len(images)
    torch.testing.assert_close(run.module.weight.grad, slope, rtol=1e-4, atol=1e-7)


# What it is for


def robust_accuracy(module: nn.Module, data: Dataset, n: int = 200) -> float:
    images, labels = data.test.images[:n], data.test.labels[:n]
    classifier = Classifier(module, n_classes=10)
    with classifier.frozen():
        reached = pgd(
            WrappedModel(classifier), images, labels, norm="linf", epsilon=0.1, seed=0, steps=10, relative_step=0.25,
            random_start=True,
        )  # fmt: skip
    return float((training.predict(module, reached).argmax(1) == labels).float().mean())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def trained(digits: Dataset, trained_folder: Path) -> Callable[..., nn.Module]:
    """Short trainings of a small model, equal but for the adversary, from a teacher if there is one."""
    own = load_definition("ode-ablated")
    taught = replace(load_definition("kd-ode"), architecture=own.architecture, settings=own.settings, has_horizon=False)

    def train(**changes: Any) -> nn.Module:
        definition = taught if changes.get("adversary") == "rslad" else own
        recipe = definition.recipe(DIGITS, changes={"epochs": 15, "batch_size": 64, **changes})
        return training.find_or_train(recipe, digits, folder=trained_folder).module

    return train


@pytest.mark.parametrize("kind", ["madry", pytest.param("trades", marks=pytest.mark.slow)])
def test_adversarial_training_makes_a_model_more_robust(
    kind: str, digits: Dataset, trained: Callable[..., nn.Module]
) -> None:
    plain, hardened = trained(), trained(adversary=kind, adversary_steps=3)
    assert robust_accuracy(hardened, digits) > robust_accuracy(plain, digits) + 0.2
    assert training.accuracy(hardened, digits.test) > 0.7


@pytest.mark.slow
def test_a_robust_teacher_hands_robustness_on(digits: Dataset, trained: Callable[..., nn.Module]) -> None:
    changes = {"teacher_adversary": "madry", "teacher_adversary_steps": 3, "teacher_epochs": 6}
    student = trained(adversary="rslad", adversary_steps=3, **changes)
    assert robust_accuracy(student, digits) > robust_accuracy(trained(), digits) + 0.2
    assert training.accuracy(student, digits.test) > 0.7
