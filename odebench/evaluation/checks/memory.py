"""Whether a model knows the public test images rather than what they show: check 22."""

from __future__ import annotations

import torch
from pydantic import JsonValue
from torch import Tensor

from odebench.attack.early_stopping import strictly_correct
from odebench.dataset import Split
from odebench.evaluation.checks.rule import skipped, threshold_check
from odebench.evaluation.verdict import Judge
from odebench.numerics.shapes import Images
from odebench.numerics.statistics import difference_interval
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

MOST = 500
"""Images of each split that are asked."""
NOISES = (0.1, 0.2, 0.3, 0.4)
"""Standard deviations of the noise of noisy copies, in units of the image range."""
MARGIN = 0.02
"""The gap that must be excluded."""
FALSE_ALARMS = 0.001
"""The probability that any of the comparisons of an honest model excludes no gap at all."""


def memorised_images(judge: Judge, test: Split, validation: Split | None, *, seed: int = 0) -> Check:
    """Check 22: accuracy on test images against validation images, as they are, shifted by a pixel, and noisy.

    A model that looks its answers up in the public test images is right on them and on noisy copies of them, and worse
    on images that it has not seen; one that has learnt is as good on both. Flags where Newcombe's interval of the
    difference, at 99.9% for all comparisons together, lies above 2 points. Skipped without validation images.
    """
    if validation is None or not len(validation):
        return skipped(CheckId.MEMORISED_IMAGES, speaks_of="settings", why="there are no validation images")
    parts = [split.part(slice(0, MOST)) for split in (test, validation)]
    confidence = 1 - FALSE_ALARMS / (2 + len(NOISES))
    gaps: dict[str, JsonValue] = {}
    largest = -1.0
    for name in ("as they are", "shifted", *map(str, NOISES)):
        right = [_right(judge, part, name, seed) for part in parts]
        (n_test, n_validation) = map(len, parts)
        low, _ = difference_interval(right[0], n_test, right[1], n_validation, confidence=confidence)
        gaps[name] = round(right[0] / n_test - right[1] / n_validation, 6)
        largest = max(largest, low)
    return threshold_check(
        CheckId.MEMORISED_IMAGES,
        speaks_of="model",
        flagged=largest > MARGIN,
        figure=largest,
        threshold=MARGIN,
        why="by how much it is surely better on test images, or copies of them, than on validation images: what "
        "knows the test images by heart tells nothing of others; train on train images alone",
        evidence={"gaps": gaps, "test": len(parts[0]), "validation": len(parts[1])},
    )


def _right(judge: Judge, part: Split, name: str, seed: int) -> int:
    points = _copies(part.images, name, seed)
    answer = judge.answer(points)
    return int((strictly_correct(answer.logits, part.labels) & ~answer.failed).sum())


def _copies(images: Images, name: str, seed: int) -> Tensor:
    if name == "as they are":
        return images
    if name == "shifted":
        shifted = torch.zeros_like(images)
        shifted[..., 1:] = images[..., :-1]
        return shifted
    generator = torch.Generator().manual_seed(seed)
    return (images + float(name) * torch.randn(images.shape, generator=generator)).clamp(0, 1)
