"""Whether the gradient that attacks follow is that of the function which is deployed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from pydantic import JsonValue
from torch import Tensor

from odebench.attack.wrapped_model import WrappedModel
from odebench.attack.zero_gradient import REACH
from odebench.evaluation.checks.adjoint import adjoint_curve
from odebench.evaluation.checks.rule import skipped, threshold_check
from odebench.io.text import first_line
from odebench.model.classifier import Classifier
from odebench.numerics.projection import project
from odebench.numerics.shapes import Images, Labels
from odebench.protocol.spec import VERDICT_BATCH, Norm
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

DIRECTIONS, SMALL_DIRECTIONS = 8, 6
FIDELITY_IMAGES = 32
"""How many images of the first chunk are used, of those classified correctly."""
FIDELITY_ALONE = 12
"""The same for a model that is asked image by image."""
FIDELITY_THRESHOLD, ADAPTIVE_THRESHOLD = 0.95, 0.9
PLACES = ("beside", "inside", "surface", "border")
NOTHING = 2.0
"""Stands for the cosine where neither the gradient nor the differences are other than zero."""
FEW = 4
"""How many points are asked in small batches."""
TOGETHER = 128
"""How many moved points are asked at once for differences: calls of small models take as long as what they compute."""
LOGIT_TOLERANCE = 1e-4
"""Logits that differ by more than this share of the largest |logit| are those of another function."""
SMALL_PIXELS_THRESHOLD, ADAPTIVE_SMALL_PIXELS_THRESHOLD = 0.7, 0.5
"""Of the cosine over the half of all pixels with the smallest gradient."""
LEAST_SMALL_SLOPE = 1e-4
"""Slopes in these pixels that are smaller, as a share of those in all, are not compared: fp32 rounds them."""
WRONG_COSINE, WRONG_SHARE = 0.5, 1 / 8
"""A gradient with a cosine below the first is wrong; the check flags if it is for more than this share of images."""
SLOPE_TOLERANCE, ADAPTIVE_SLOPE_TOLERANCE = 0.1, 0.25
"""How far from 1 the slope along the sign of the gradient may lie, as a share of the slope that the gradient has."""
STEP = 1e-6
"""Half the distance of a central difference, in units of the image range."""
INSIDE = 2e-5
"""How far from black and white pixels are kept, but at the border itself, so that no difference reaches across the edge
of the range, where a model that clips its input has a kink."""


def gradient_fidelity(
    classifier: Classifier,
    images: Images,
    *,
    norm: Norm,
    epsilon: float,
    seed: int = 0,
    alone: bool = False,
    adjoint: bool = False,
) -> Check:
    """Check 17: the gradient that attacks use against differences in fp64 along 8 random directions.

    They are compared where attacks walk: beside the images, inside the ball, on its surface, and at the border of
    [0, 1] (there one-sided).

    The loss is the cross-entropy of the runner-up class, which does not saturate where the model is sure. Flags when
    the median cosine over all points is below 0.95 (under an adaptive solver 0.9: a correct gradient differs there, as
    it ignores how the steps depend on the image), or when it is below 0.5 for more than an eighth of all points, or for
    more than half of those at one place. Flags, too, when for as many points the logits with gradients, or in fp64,
    differ from those without by more than 1e-4 of the largest |logit|: then the differences are of another function.

    Attacks in linf step along the sign of the gradient, where pixels with a small gradient count as much as others. So
    the slope of the loss in that direction is compared with the one that the gradient promises, whatever the scale of
    the gradient. Flags when the median ratio differs from 1 by more than 0.1
    (adaptive: 0.25); it is 1 within 0.011 for 220 published models
    (benchmarks/honest_checks.py). Pixels whose gradient is left out or random would
    not show there: for the half with the smallest gradient a cosine of its own is taken, and flags when its median is
    below 0.7 (adaptive: 0.5).

    `alone`: every point is asked in a batch of its own; otherwise gradients are taken in batches of all points, of the
    verdict's size, of three, and alone. With `adjoint`, the evidence for an ODE classifier also holds the cosine of the
    direct gradient with that of the adjoint equation at several horizons; it does not decide the status.
    """
    images = images[: FIDELITY_ALONE if alone else FIDELITY_IMAGES].to(classifier.device)
    if not len(images):
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why="no image is classified correctly")
    try:
        found = _compare(classifier, images, norm=norm, epsilon=epsilon, seed=seed, alone=alone)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # copying a module, calling it in fp64 or going backward may raise anything
        line = first_line(error)
        why = f"the model cannot be evaluated in fp64 ({line})"
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why=why)
    cosines = found.cosines[found.cosines < NOTHING]
    if not len(cosines):
        why = "neither the gradient nor the differences are other than zero: there is nothing to compare"
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why=why)
    wrong = found.cosines < WRONG_COSINE
    evidence: dict[str, JsonValue] = {"images": len(images), "compared": len(cosines)}
    if adjoint and classifier.horizon is not None:
        evidence |= adjoint_curve(classifier, images.clamp(INSIDE, 1 - INSIDE))
    adaptive = classifier.solver is not None and classifier.solver.adaptive
    threshold = ADAPTIVE_THRESHOLD if adaptive else FIDELITY_THRESHOLD
    tolerance = ADAPTIVE_SLOPE_TOLERANCE if adaptive else SLOPE_TOLERANCE
    least = ADAPTIVE_SMALL_PIXELS_THRESHOLD if adaptive else SMALL_PIXELS_THRESHOLD
    small = found.small[found.small < NOTHING]
    median_small = float(small.median()) if len(small) else 1.0
    median, along = float(cosines.median()), float(found.along_sign[found.cosines < NOTHING].median())
    evidence |= {
        "below": int((cosines < threshold).sum()),
        "wrong": int(wrong.sum()),
        "wrong_at": {name: int(wrong[rows].sum()) for name, rows in found.places.items()},
        "other_logits": int(found.other_logits.sum()),
        "along_sign": along,
        "small_pixels": median_small,
    }
    flagged = (
        median < threshold
        or abs(along - 1) > tolerance
        or median_small < least
        or any(_too_many(points, found.places) for points in (wrong, found.other_logits))
    )
    return threshold_check(
        CheckId.GRADIENT_FIDELITY,
        speaks_of="model",
        flagged=flagged,
        figure=median,
        threshold=threshold,
        why="cosine of the attack's gradient with differences: a gradient of another function hides weaknesses; "
        "differentiate through the solver that is deployed, without adjoint, rounding or a detached part",
        evidence=evidence,
    )


def _too_many(points: Tensor, places: dict[str, slice]) -> bool:
    """Whether these are more than an eighth of all points, or more than half of those at one place."""
    if int(points.sum()) > WRONG_SHARE * len(points):
        return True
    return any(2 * int(points[rows].sum()) > len(points[rows]) for rows in places.values())


@dataclass(frozen=True)
class _Comparison:
    """Of each point the cosine (2 where there is nothing to compare), the ratio of the slope along the gradient's sign
    to the promised one, the cosine over the pixels with the smallest gradient, and whether its logits differ when it is
    asked in another way; which points lie at each place."""

    cosines: Float[Tensor, " points"]
    along_sign: Float[Tensor, " points"]
    small: Float[Tensor, " points"]
    other_logits: Bool[Tensor, " points"]
    places: dict[str, slice]


def _points(images: Images, norm: Norm, epsilon: float, seed: int) -> tuple[Images, dict[str, slice]]:
    """Points at each place, the images shared out to them: beside the images, inside the ball, on its surface, and at
    the border of [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    count = max(1, len(images) // len(PLACES))
    places = {name: slice(index * count, (index + 1) * count) for index, name in enumerate(PLACES)}
    around = images[torch.arange(count * len(PLACES)) % len(images)]
    drawn = 2 * torch.rand(around.shape, generator=generator).to(images.device) - 1
    near = epsilon
    if norm == "l2":
        near = epsilon / images[0].numel() ** 0.5
        drawn = drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None]
    inside, surface = places["inside"], places["surface"]
    points = around.clone()
    points[inside] = project(around[inside], around[inside] + epsilon / 2 * drawn[inside], norm=norm, epsilon=epsilon)
    furthest = drawn[surface].sign() if norm == "linf" else drawn[surface]
    points[surface] = project(around[surface], around[surface] + epsilon * furthest, norm=norm, epsilon=epsilon)
    points = points.clamp(INSIDE, 1 - INSIDE)
    border = around[places["border"]]
    points[places["border"]] = torch.where(border <= near, 0.0, torch.where(border >= 1 - near, 1.0, border))
    return points, places


def _compare(
    classifier: Classifier, images: Images, *, norm: Norm, epsilon: float, seed: int, alone: bool
) -> _Comparison:
    """Directional derivatives against differences, at points of all places."""
    points, places = _points(images, norm, epsilon, seed)
    double = classifier.in_fp64()
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn((DIRECTIONS, *points.shape), generator=generator, dtype=torch.float64).to(points.device)
    # Differences at the border go inwards, and to one side.
    inwards = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    inwards[places["border"]] = True
    signs = torch.where(points <= 0, 1.0, torch.where(points >= 1, -1.0, directions.sign()))
    directions = torch.where(inwards[:, None, None, None], directions.abs() * signs, directions)
    doubles = points.double()
    size = 1 if alone else len(points)
    with torch.no_grad(), double.frozen():
        logits64 = in_batches(lambda part: double.answer(part).logits, doubles, size)
        runner_up = logits64.topk(2, dim=1).indices[:, 1]
        plain = in_batches(lambda part: classifier.answer(part).logits, points, size)

    def losses(moved: Float[Tensor, "directions points channels height width"], rows: Tensor) -> Tensor:
        together = max(TOGETHER, len(points))
        logits = in_batches(lambda part: double.answer(part).logits, moved.flatten(0, 1), 1 if alone else together)
        labels = runner_up[rows].repeat(len(moved))
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none").view(moved.shape[:2])

    def slopes(directions: Tensor, rows: Tensor) -> Float[Tensor, "directions points"]:
        one_sided = inwards[rows, None, None, None]
        with torch.no_grad(), double.frozen():
            end = losses(doubles[rows] + STEP * directions, rows)
            start = losses(doubles[rows] - torch.where(one_sided, 0.0, STEP * directions), rows)
        return (end - start) / torch.where(inwards[rows], STEP, 2 * STEP)

    every = torch.arange(len(points), device=points.device)
    true = slopes(directions, every)
    outwards = torch.where(points <= 0, -1.0, torch.where(points >= 1, 1.0, 0.0))
    cosines = torch.full((len(points),), NOTHING, dtype=torch.float64, device=points.device)
    largest = plain.abs().amax(1).clamp_min(1e-12)
    other = (logits64.float() - plain).abs().amax(1) > LOGIT_TOLERANCE * largest
    along = torch.ones(len(points), dtype=torch.float64, device=points.device)
    small = torch.full_like(cosines, NOTHING)

    def small_cosines(gradient: Images) -> Tensor:
        size = gradient.flatten(1).abs()
        least = (size <= size.median(dim=1, keepdim=True).values).view_as(gradient)
        within = directions[:SMALL_DIRECTIONS] * least
        measured = slopes(within, every)
        promised = (gradient * within).flatten(2).sum(2)
        told = measured.norm(dim=0) > LEAST_SMALL_SLOPE * true.norm(dim=0)
        return torch.where(told, torch.nn.functional.cosine_similarity(promised, measured, dim=0), NOTHING)

    compared: list[Images] = []
    few = every[:: max(1, len(points) // FEW)]
    for rows, size in ((every, 1),) if alone else ((every, len(points)), (every, VERDICT_BATCH), (few, 3), (few, 1)):
        gradient, logits = _gradient_and_logits(classifier, points[rows], runner_up[rows], size)
        used = (directions[:, rows] * gradient.double()).flatten(2).sum(2)
        some = (used.norm(dim=0) > 0) | (true[:, rows].norm(dim=0) > 1e-9)
        found = torch.nn.functional.cosine_similarity(used, true[:, rows], dim=0)
        cosines[rows[some]] = torch.minimum(cosines[rows[some]], found[some])
        gradient = gradient.double()
        if not any(_alike(gradient, one[rows]) for one in compared):
            if len(rows) == len(points):
                small = torch.minimum(small, small_cosines(gradient))
                compared.append(gradient)
            sign = torch.where(gradient.sign() == outwards[rows], 0.0, gradient.sign())
            # How much steeper the function is than its gradient says, in the mean over the random directions.
            scale = (used * true[:, rows]).sum(0) / (used * used).sum(0).clamp_min(1e-300)
            promised = scale * (gradient * sign).flatten(1).sum(1)
            ratio = slopes(sign[None], rows)[0] / promised.clamp_min(1e-300)
            ratio = torch.where(promised > 0, ratio, 0.0)
            along[rows] = torch.where((ratio - 1).abs() > (along[rows] - 1).abs(), ratio, along[rows])
        other[rows] |= (logits - plain[rows]).abs().amax(1) > LOGIT_TOLERANCE * largest[rows]
    return _Comparison(cosines.cpu(), along.cpu(), small.cpu(), other.cpu(), places)


def _alike(gradient: Images, other: Images) -> bool:
    """Whether no pixel of two gradients differs by more than a thousandth of the median, as it does by rounding:
    then what the pixels below the median and the signs say is the same."""
    median = other.flatten(1).abs().median(dim=1).values
    return bool(((gradient - other).flatten(1).abs().amax(1) <= 1e-3 * median).all())


def in_batches(ask: Callable[[Images], Tensor], points: Images, size: int) -> Tensor:
    """The answers about all points, asked `size` at a time."""
    return torch.cat([ask(part.clone()) for part in torch.split(points, size)])


def _gradient_and_logits(
    classifier: Classifier, points: Images, labels: Labels, size: int
) -> tuple[Images, Float[Tensor, "batch classes"]]:
    """The gradient of the summed loss, and the logits that it was taken from, in batches of exactly `size`, filled up
    with copies of the first points.

    A pixel with a gradient of exactly zero takes that of a point just inside, as in attacks, which go further.
    """
    gradients, logits = [], []
    for rows in torch.split(torch.arange(-(-len(points) // size) * size) % len(points), size):
        wrapped = WrappedModel(classifier)
        wrapped.at_scale_of("linf", INSIDE / REACH)
        asked = points[rows].detach().clone().requires_grad_()
        with torch.enable_grad():
            answered = wrapped(asked)
            loss = torch.nn.functional.cross_entropy(answered, labels[rows], reduction="sum")
            gradients.append(torch.autograd.grad(loss, asked)[0])
        logits.append(answered.detach())
    return torch.cat(gradients)[: len(points)], torch.cat(logits)[: len(points)]
