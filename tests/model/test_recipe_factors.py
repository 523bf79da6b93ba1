"""What a study varies: the scale and steps of a horizon, noise in labels, number of images, smoothing, the teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from odebench.dataset import Dataset, Split, load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import ModelError, UsageError
from odebench.model.definition import load_definition
from odebench.model.losses import loss_function
from odebench.model.ode import OdeNet
from odebench.model.training import build
from odebench.model.training_data import train_split
from odebench.protocol.recipe import Recipe


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def recipe(name: str = "ode", *, horizon: float | None = 1.0, seed: int = 0, **changes: Any) -> Recipe:
    return load_definition(name).recipe(DIGITS, horizon=horizon, train_seed=seed, changes=changes)


# What a horizon is: docs/study.md. D: T = 4, step 1/4. C: T = 1, step 1/16, initial values times 4


def scaled_parts(module: nn.Module) -> list[Tensor]:
    """The tensors that a longer horizon scales: those of the last norm, and the weights of the time."""
    assert isinstance(module, OdeNet)
    norm = module.field.norm3
    return [norm.weight, norm.bias, *(each.conv.weight[:, :1] for each in module.field.time_convs)]


def c_and_d() -> tuple[nn.Module, nn.Module]:
    return build(recipe(train_step="1/16", initial_scale=4, channels=8)), build(recipe(horizon=4.0, channels=8))


def test_a_horizon_of_four_is_a_field_four_times_as_large_at_a_quarter_of_the_step(digits: Dataset) -> None:
    c, d = c_and_d()
    images = digits.test.images[:20]
    assert torch.equal(c(images), d(images))
    only_steps = build(recipe(train_step="1/16", channels=8))
    assert not torch.allclose(only_steps(images), d(images))
    for mine, theirs in zip(scaled_parts(c), scaled_parts(d), strict=True):
        assert torch.equal(mine, 4 * theirs)


def test_a_longer_horizon_is_a_smaller_learning_rate_of_the_scaled_tensors(digits: Dataset) -> None:
    c, d = c_and_d()
    assert digits.train is not None
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    before = [part.detach().clone() for part in scaled_parts(c)]
    for module in (c, d):
        optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.0)
        functional.cross_entropy(module(images), labels).backward()
        optimiser.step()
    plain = c(images)
    with torch.no_grad():
        for part, old in zip(scaled_parts(c), before, strict=True):
            part += 3 * (part - old)  # the step of the scaled tensors, four times as long
    plain, scaled, longer = plain.detach(), c(images).detach(), d(images).detach()
    assert torch.allclose(scaled, longer, atol=1e-4 * float(longer.abs().max()))
    assert not torch.allclose(plain, longer, atol=1e-4 * float(longer.abs().max()))


def test_a_field_without_a_factor_is_built_as_before() -> None:
    named = recipe(initial_scale=1)
    plain = recipe()
    assert "initial_scale" not in plain.arguments
    for mine, theirs in zip(build(named).parameters(), build(plain).parameters(), strict=True):
        assert torch.equal(mine, theirs)


# Data


def test_noise_is_the_same_for_all_seeds_and_models_and_always_another_label(digits: Dataset) -> None:
    assert digits.train is not None
    true = digits.train.labels
    first = train_split(recipe(label_noise=0.2), digits.train, 10).labels
    other = train_split(recipe("kd-ode", seed=7, label_noise=0.2), digits.train, 10).labels
    assert torch.equal(first, other)
    assert int((first != true).sum()) == round(0.2 * len(true))
    changed = first[first != true] - true[first != true]
    assert len(set((changed % 10).tolist())) == 9
    assert train_split(recipe(), digits.train, 10) is digits.train


def test_fewer_images_are_the_first_of_a_stratified_order_with_their_noisy_labels(digits: Dataset) -> None:
    assert digits.train is not None
    small = train_split(recipe(train_images=100), digits.train, 10)
    assert torch.bincount(small.labels).tolist() == [10] * 10
    more = train_split(recipe(train_images=250), digits.train, 10)
    assert torch.equal(more.images[:100], small.images)
    whole = train_split(recipe(label_noise=0.4), digits.train, 10)
    noisy = train_split(recipe(label_noise=0.4, train_images=100), digits.train, 10)
    assert torch.equal(noisy.images, small.images)
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(whole.images, whole.labels, strict=True)}
    assert [label_of[image.numpy().tobytes()] for image in noisy.images] == noisy.labels.tolist()
    with pytest.raises(ModelError, match=f"train_images=9999, but there are {len(digits.train)}"):
        train_split(recipe(train_images=9999), digits.train, 10)


def test_a_teacher_has_data_of_its_own() -> None:
    clean = recipe("kd-ode", label_noise=0.2)
    assert clean.teacher is not None
    assert clean.teacher.label_noise is None
    noisy = recipe("kd-ode", label_noise=0.2, teacher_label_noise=0.2)
    assert noisy.teacher is not None
    assert noisy.teacher.label_noise == 0.2
    assert len({one.key for one in (clean, noisy, recipe("kd-ode"))}) == 3


# Losses and teachers


def test_smoothing_is_szegedys() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.0]])
    labels = torch.tensor([0, 2])
    logs = logits.log_softmax(1)
    by_hand = -(0.9 * logs[range(2), labels] + 0.1 * logs.mean(1)).mean()
    assert loss_function(recipe(smoothing=0.1).loss)(logits, labels, None) == pytest.approx(float(by_hand))
    assert loss_function(recipe().loss)(logits, labels, None) == functional.cross_entropy(logits, labels)


def test_self_distillation_has_a_plain_teacher_of_another_seed_at_the_same_horizon() -> None:
    found = recipe("self-kd-ode", horizon=2.0, seed=3)
    assert found.teacher == recipe("ode", horizon=2.0, seed=1003)
    assert found.loss == recipe("kd-ode").loss


def test_fields_that_are_absent_are_not_written() -> None:
    written = recipe().model_dump(mode="json")
    assert {"label_noise", "train_images", "adversary"}.isdisjoint(written)
    assert "smoothing" not in written["loss"]
    # the digest of a published recipe
    assert recipe("ode").key == "a79bf13b1a2e6e16926e93c998dba1cc33c4432109fad5a9dd950924cb91f5e2"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label_noise": 1.5}, "label_noise=1.5 does not fit a recipe"),
        ({"train_images": 0}, "train_images=0 does not fit a recipe"),
        ({"smoothing": 1}, "smoothing=1 does not fit a recipe"),
        ({"train_step": 0}, "train_step=0 is no step; give a positive number, such as 0.0625 or 1/16"),
        ({"train_step": "a/b"}, "train_step"),
        ({"initial_scal": 4}, "a recipe has no initial_scal; known:"),
    ],
)
def test_changes_that_do_not_fit_are_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe(**changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_steps_takes_none() -> None:
    with pytest.raises(UsageError, match="resnet is not trained by a fixed-step method"):
        recipe("resnet", horizon=None, train_step=0.1)


def test_a_split_keeps_its_pixels_as_they_are(digits: Dataset) -> None:
    assert digits.train is not None
    found = train_split(recipe(label_noise=0.2), digits.train, 10)
    assert isinstance(found, Split)
    assert found.pixels is digits.train.pixels
