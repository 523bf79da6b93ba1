"""Whether a model knows the public test images rather than what they show: check 22."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from pydantic import JsonValue
from torch import Tensor

from odebench.attack.early_stopping import strictly_correct
from odebench.attack.wrapped_model import WrappedModel
from odebench.dataset import Split
from odebench.evaluation.checks.rule import skipped, threshold_check
from odebench.evaluation.verdict import Judge
from odebench.numerics.shapes import Images
from odebench.numerics.statistics import difference_interval, wilson_lower
from odebench.protocol.spec import VERDICT_BATCH
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

MOST = 500
"""Images of each split that are asked."""
NOISES = (0.1, 0.2, 0.3, 0.4)
"""Standard deviations of the noise of noisy copies, in units of the image range."""
MARGIN = 0.02
"""The gap that must be excluded."""
TRACED = 100
"""Test images at which traces of stored images are looked for."""
DIRECTIONS, STEP = 8, 0.01
"""Random directions around an image, and the largest change of a pixel along them."""
ROUNDED = 1e-5
"""A share of the largest |logit| that fp32 may round away."""
PARALLEL = 0.98
"""The cosine from which a gradient points away from an image."""
TRACES = 0.25
"""The share of test images with a trace that must be exceeded; nearest neighbours have one at nearly all."""
FALSE_ALARMS = 0.001
"""The probability that any of the comparisons of an honest model excludes no gap at all."""


def memorised_images(
    judge: Judge, test: Split, validation: Split | None, *, train: Split | None = None, seed: int = 0
) -> Check:
    """Check 22: accuracy on test images against validation images, as they are, shifted by a pixel, and noisy.

    A model that looks its answers up in the public test images is right on them and on noisy copies of them, and worse
    on images that it has not seen; one that has learnt is as good on both. Flags where Newcombe's interval of the
    difference, at 99.9% for all comparisons together, lies above 2 points. Skipped without validation images.

    A model may know the validation images, too. So it also flags where traces of stored images are found at more than
    a quarter of the test images, by Wilson's lower bound: the logit of the answer has its peak exactly there, or the
    gradient between the two largest logits points away from an image of the data set, as that of distances does.
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
    evidence: dict[str, JsonValue] = {"gaps": gaps, "test": len(parts[0]), "validation": len(parts[1])}
    traced = test.images[:TRACED]
    known = [split.images for split in (test, validation, train) if split is not None]
    traces = {"peaks": _peaks(judge, traced, seed), "pointers": _pointers(judge, traced, known)}
    evidence |= {"traces": {name: int(found.sum()) for name, found in traces.items()}, "traced": len(traced)}
    bound = max(wilson_lower(int(found.sum()), len(traced)) for found in traces.values())
    if bound > TRACES and largest <= MARGIN:
        return threshold_check(
            CheckId.MEMORISED_IMAGES,
            speaks_of="model",
            flagged=True,
            figure=bound,
            threshold=TRACES,
            why="the share of test images, at least, at which it answers by its distance to stored images, these very "
            "images among them; train on train images alone",
            evidence=evidence,
        )
    return threshold_check(
        CheckId.MEMORISED_IMAGES,
        speaks_of="model",
        flagged=largest > MARGIN,
        figure=largest,
        threshold=MARGIN,
        why="by how much it is surely better on test images, or copies of them, than on validation images: what "
        "knows the test images by heart tells nothing of others; train on train images alone",
        evidence=evidence,
    )


def _peaks(judge: Judge, images: Images, seed: int) -> Bool[Tensor, " batch"]:
    """Where the logit of the answer bends more than it slopes, a small step around an image: its peak is right there.
    Pixels that the step would take out of [0, 1] stay."""
    here = judge.answer(images).logits
    answered = here.argmax(1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    free = (images >= STEP) & (images <= 1 - STEP)
    slope, bend = (torch.zeros(len(images), dtype=torch.float64) for _ in range(2))
    for _ in range(DIRECTIONS):
        step = STEP * free * (2 * torch.rand(images.shape, generator=generator) - 1)
        up, down = (judge.answer(images + sign * step).logits.double().gather(1, answered)[:, 0] for sign in (1, -1))
        slope += ((up - down) / 2) ** 2
        bend += ((up + down) / 2 - here.double().gather(1, answered)[:, 0]) ** 2
    return (bend > slope) & (bend.sqrt() > ROUNDED * here.abs().amax(1))


def _pointers(judge: Judge, images: Images, known: Sequence[Images]) -> Bool[Tensor, " batch"]:
    """Where the gradient of the largest logit minus the second is parallel to the image minus a known one."""
    points = images.to(judge.classifier.device, copy=True).requires_grad_()
    gradients = []
    for part in torch.split(points, 1 if judge.alone else VERDICT_BATCH):
        wrapped = WrappedModel(judge.classifier)
        with torch.enable_grad():
            two = wrapped(part).topk(2, dim=1).values
            gradients.append(torch.autograd.grad((two[:, 0] - two[:, 1]).sum(), part)[0].flatten(1).cpu())
    gradient, flat = torch.nn.functional.normalize(torch.cat(gradients)), images.flatten(1)
    found = torch.zeros(len(images), dtype=torch.bool)
    for others in (part.flatten(1) for each in known for part in torch.split(each, 5000)):
        along = (gradient * flat).sum(1, keepdim=True) - gradient @ others.T
        apart = torch.cdist(flat, others)
        found |= ((along > PARALLEL * apart) & (apart > 1e-3)).any(1)
    return found


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
