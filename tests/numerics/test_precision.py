"""fp32 means fp32, whatever the process has asked torch for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_model import grey_images, judged, linear, predicted
from torch import Tensor, nn

from odebench.dataset import Dataset, Split, load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.evaluation.verdict import Judge
from odebench.model import training
from odebench.model.classifier import Classifier
from odebench.model.definition import load_definition
from odebench.numerics.precision import full_fp32

BACKENDS = torch.backends


def switches() -> tuple[object, ...]:
    """All that decides how fp32 is computed; a switch that torch refuses to tell of is said to be mixed."""
    found: list[object] = [BACKENDS.cudnn.benchmark, BACKENDS.cudnn.deterministic]
    for told in (
        lambda: BACKENDS.cudnn.allow_tf32,
        lambda: BACKENDS.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision,
    ):
        try:
            found.append(told())
        except RuntimeError:
            found.append("mixed")
    parts = (BACKENDS.cuda.matmul, *(getattr(BACKENDS.cudnn, part, None) for part in ("conv", "rnn")))
    return *found, *(
        getattr(part, "fp32_precision", None) for part in (*parts, getattr(BACKENDS.mkldnn, "matmul", None))
    )


def reduced() -> list[str]:
    """The ways in which fp32 would be something else at the moment."""
    benchmark, deterministic, convolved, multiplied, precision, *parts = switches()
    wrong = {
        "benchmark": benchmark,
        "order": not deterministic,
        "convolution": convolved is True,
        "product": multiplied is True,
        "precision": precision not in ("highest", "mixed"),
        "part": any(part not in (None, "ieee") for part in parts),
    }
    return [name for name, is_wrong in wrong.items() if is_wrong]


def _set_all() -> None:
    torch.set_float32_matmul_precision("medium")
    BACKENDS.cudnn.allow_tf32 = True
    BACKENDS.cudnn.benchmark = True


def _set_newer() -> None:
    BACKENDS.cuda.matmul.fp32_precision = "tf32"
    BACKENDS.cudnn.conv.fp32_precision = "ieee"


def _set_generic() -> None:
    BACKENDS.fp32_precision = "tf32"


NEEDS_NEWER = pytest.mark.skipif(not hasattr(BACKENDS, "fp32_precision"), reason="torch has the older switches alone")
WAYS = [
    pytest.param(lambda: None, id="default"),
    pytest.param(_set_all, id="older"),
    pytest.param(_set_newer, id="newer", marks=NEEDS_NEWER),
    pytest.param(_set_generic, id="generic", marks=NEEDS_NEWER),
]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The switches of a fresh process after each test."""
    yield
    if hasattr(BACKENDS, "fp32_precision"):
        BACKENDS.fp32_precision = "none"
        for part in (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn):
            part.fp32_precision = "none"
    BACKENDS.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.benchmark = BACKENDS.cudnn.deterministic = False


@pytest.mark.parametrize("ask", WAYS)
def test_fp32_is_full_inside_and_what_it_was_after(ask: Callable[[], None]) -> None:
    ask()
    before = switches()
    assert reduced()
    with full_fp32():
        assert reduced() == []
        with full_fp32():
            assert reduced() == []
        assert reduced() == []
    assert switches() == before


def test_fp32_is_what_it_was_after_an_error() -> None:
    _set_all()
    before = switches()
    with pytest.raises(ValueError, match="inside"), full_fp32():
        raise ValueError("inside")
    assert switches() == before


class Asked(nn.Module):
    """A model that remembers how fp32 is computed when it is asked, and when its gradient is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forward_ways: list[list[str]] = []
        self.backward_ways: list[list[str]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.forward_ways.append(reduced())
        logits: Tensor = self.inner(images)
        if logits.requires_grad:
            logits.register_hook(lambda _: self.backward_ways.append(reduced()))
        return logits


def test_a_verdict_is_in_full_fp32() -> None:
    _set_all()
    net = Asked(linear(3))
    Judge(Classifier(net, n_classes=3)).answer(grey_images(4))
    assert net.forward_ways
    assert not any(net.forward_ways)


def test_attacks_and_checks_are_in_full_fp32() -> None:
    _set_all()
    net, images = Asked(linear(3)), grey_images(4)
    judged(net, images, predicted(net.inner, images), n_classes=3, attack="pgd", chunk=4, steps=2)
    assert len(net.forward_ways) > 4
    assert not any(net.forward_ways)
    assert len(net.backward_ways) > 2
    assert not any(net.backward_ways)


def test_a_training_is_in_full_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _set_all()
    digits = load_dataset("digits")
    few = Split(digits.test.images[:40], digits.test.labels[:40])
    recipe = load_definition("resnet").recipe(DIGITS, train_seed=0, changes={"epochs": 1, "batch_size": 20})
    net = Asked(training.build(recipe))
    monkeypatch.setattr(training, "build", lambda _: net)
    training.find_or_train(recipe, Dataset("digits", digits.classes, few, None, few), folder=tmp_path)
    assert len(net.forward_ways) > 2
    assert len(net.backward_ways) == 2
    assert not any(net.forward_ways + net.backward_ways)
