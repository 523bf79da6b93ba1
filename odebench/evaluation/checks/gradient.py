"""Whether the gradient that attacks follow is that of the function which is deployed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import JsonValue
from torch import Tensor

from odebench.attack.wrapped_model import WrappedModel
from odebench.attack.zero_gradient import REACH
from odebench.evaluation.checks.rule import skipped, threshold_check
from odebench.io.text import first_line
from odebench.model.classifier import Classifier
from odebench.numerics.projection import project
from odebench.numerics.shapes import Images, Labels
from odebench.protocol.spec import Norm
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

DIRECTIONS = 8
FIDELITY_IMAGES = 32
"""How many images of the first chunk are used, of those classified correctly."""
FIDELITY_THRESHOLD, ADAPTIVE_THRESHOLD = 0.95, 0.8
PLACES = ("beside", "inside", "surface", "border")
LOGIT_TOLERANCE = 1e-4
"""Logits that differ by more than this share of the largest |logit| are those of another function."""
WRONG_COSINE, WRONG_SHARE = 0.5, 1 / 8
"""A gradient with a cosine below the first is wrong; the check flags if it is for more than this share of images."""
STEP = 1e-6
"""Half the distance of a central difference, in units of the image range."""
INSIDE = 2e-5
"""How far from black and white pixels are kept, but at the border itself, so that no difference reaches across the edge
of the range, where a model that clips its input has a kink."""
HORIZON_SHARES = (0.25, 0.5, 1.0, 2.0)
"""The horizons, as shares of the model's, at which the adjoint's gradient is compared."""


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
    the median cosine over all points is below 0.95 (under an adaptive solver 0.8: a correct gradient differs there, as
    it ignores how the steps depend on the image), or when it is below 0.5 for more than an eighth of the points of one
    place. Flags, too, when for more than an eighth of the points the logits with gradients, or in fp64, differ from
    those without by more than 1e-4 of the largest |logit|: then the differences are of another function.

    `alone`: every point is asked in a batch of its own; otherwise gradients are taken in batches of all points, of a
    few, and alone. With `adjoint`, the evidence for an ODE classifier also holds the cosine of the direct gradient with
    that of the adjoint equation at several horizons; it does not decide the status.
    """
    images = images[:FIDELITY_IMAGES].to(classifier.device)
    if not len(images):
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why="no image is classified correctly")
    try:
        found = [_compare(classifier, place, seed, alone) for place in _places(images, norm, epsilon, seed)]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # copying a module, calling it in fp64 or going backward may raise anything
        line = first_line(error)
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why=f"the model cannot be asked in fp64 ({line})")
    cosines = torch.cat([one.cosines for one in found])
    if not len(cosines):
        why = "neither the gradient nor the differences are other than zero: there is nothing to compare"
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why=why)
    wrong = {one.place: int((one.cosines < WRONG_COSINE).sum()) for one in found}
    other = {one.place: one.other_logits for one in found}
    evidence: dict[str, JsonValue] = {"images": len(images), "compared": len(cosines)}
    if adjoint and classifier.horizon is not None:
        evidence |= _adjoint_curve(classifier, images.clamp(INSIDE, 1 - INSIDE))
    adaptive = classifier.solver is not None and classifier.solver.adaptive
    threshold = ADAPTIVE_THRESHOLD if adaptive else FIDELITY_THRESHOLD
    median = float(cosines.median())
    evidence |= {"below": int((cosines < threshold).sum()), "wrong": dict(wrong), "other_logits": dict(other)}
    flagged = median < threshold
    flagged |= any(wrong[one.place] > WRONG_SHARE * len(one.cosines) for one in found)
    flagged |= any(one.other_logits > WRONG_SHARE * one.points for one in found)
    return threshold_check(
        CheckId.GRADIENT_FIDELITY,
        speaks_of="model",
        flagged=flagged,
        figure=median,
        threshold=threshold,
        why="cosine of the attack's gradient with differences: a gradient of another function hides falls; "
        "differentiate through the solver that is deployed, without adjoint, rounding or a detached part",
        evidence=evidence,
    )


@dataclass(frozen=True)
class _Place:
    """Points of one kind, and whether differences go to one side, inwards, as at the border of [0, 1]."""

    name: str
    points: Images
    inwards: bool = False


@dataclass(frozen=True)
class _Comparison:
    """The cosine at each point of a place where there is one, and how many points have other logits when they are asked
    in another way."""

    place: str
    points: int
    cosines: Float[Tensor, " compared"]
    other_logits: int


def _places(images: Images, norm: Norm, epsilon: float, seed: int) -> list[_Place]:
    """The images shared out to four kinds of place, at least one to each."""
    generator = torch.Generator().manual_seed(seed)
    parts = [images[index :: len(PLACES)] if len(images) >= len(PLACES) else images for index in range(len(PLACES))]
    beside, inside, surface, border = parts
    drawn = 2 * torch.rand(inside.shape, generator=generator).to(images.device) - 1
    shift = torch.randn(surface.shape, generator=generator).to(images.device)
    if norm == "l2":
        drawn = drawn * epsilon / drawn.flatten(1).norm(dim=1)[:, None, None, None] / 2
        shift = shift * epsilon / shift.flatten(1).norm(dim=1)[:, None, None, None]
    else:
        drawn, shift = drawn * epsilon, shift.sign() * epsilon
    near = epsilon if norm == "linf" else epsilon / images[0].numel() ** 0.5
    at_border = torch.where(border <= near, 0.0, torch.where(border >= 1 - near, 1.0, border))
    return [
        _Place(PLACES[0], beside.clamp(INSIDE, 1 - INSIDE)),
        _Place(PLACES[1], project(inside, inside + drawn, norm=norm, epsilon=epsilon).clamp(INSIDE, 1 - INSIDE)),
        _Place(PLACES[2], project(surface, surface + shift, norm=norm, epsilon=epsilon).clamp(INSIDE, 1 - INSIDE)),
        _Place(PLACES[3], at_border, inwards=True),
    ]


def _compare(classifier: Classifier, place: _Place, seed: int, alone: bool) -> _Comparison:
    """Directional derivatives against differences at each point of a place where either is not zero."""
    points, double = place.points, classifier.modified(module=copy.deepcopy(classifier.module).double())
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn((DIRECTIONS, *points.shape), generator=generator, dtype=torch.float64).to(points.device)
    if place.inwards:
        directions = torch.where(points <= 0, directions.abs(), torch.where(points >= 1, -directions.abs(), directions))
    doubles = points.double()
    sizes = (1,) if alone else tuple(sorted({1, min(3, len(points)), len(points)}))
    with torch.no_grad(), double.frozen():
        logits64 = _in_batches(lambda part: double.answer(part).logits, doubles, len(points))
        runner_up = logits64.topk(2, dim=1).indices[:, 1]
        plain = _in_batches(lambda part: classifier.answer(part).logits, points, sizes[-1])
        middle = _losses(double, doubles.clone(), runner_up)
        ends = [_losses(double, doubles + STEP * direction, runner_up) for direction in directions]
        starts = [
            middle if place.inwards else _losses(double, doubles - STEP * direction, runner_up)
            for direction in directions
        ]
    true = (torch.stack(ends) - torch.stack(starts)) / (STEP if place.inwards else 2 * STEP)
    worst = torch.full((len(points),), 2.0, dtype=torch.float64, device=points.device)
    asked = [logits64.float()]
    for size in sizes:
        gradient, logits = _gradient_and_logits(classifier, points, runner_up, size)
        asked.append(logits)
        used = (directions * gradient.double()).flatten(2).sum(2)
        cosine = torch.nn.functional.cosine_similarity(used, true, dim=0)
        some = (used.norm(dim=0) > 0) | (true.norm(dim=0) > 1e-9)
        worst = torch.where(some, torch.minimum(worst, cosine), worst)
    largest = plain.abs().amax(1).clamp_min(1e-12)
    apart = torch.stack([(one - plain).abs().amax(1) / largest for one in asked]).amax(0)
    return _Comparison(place.name, len(points), worst[worst <= 1.5].cpu(), int((apart > LOGIT_TOLERANCE).sum()))


def _in_batches(ask: Callable[[Images], Tensor], points: Images, size: int) -> Tensor:
    return torch.cat([ask(part.clone()) for part in torch.split(points, size)])


def _gradient_and_logits(
    classifier: Classifier, points: Images, labels: Labels, size: int
) -> tuple[Images, Float[Tensor, "batch classes"]]:
    """The gradient of the summed loss, and the logits that it was taken from, in batches of `size`.

    A pixel with a gradient of exactly zero takes that of a point just inside, as in attacks, which go further.
    """
    gradients, logits = [], []
    for part, own in zip(torch.split(points, size), torch.split(labels, size), strict=True):
        wrapped = WrappedModel(classifier)
        wrapped.at_scale_of("linf", INSIDE / REACH)
        asked = part.detach().clone().requires_grad_()
        with torch.enable_grad():
            answered = wrapped(asked)
            loss = torch.nn.functional.cross_entropy(answered, own, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, asked)
        gradients.append(gradient)
        logits.append(answered.detach())
    return torch.cat(gradients), torch.cat(logits)


def _losses(classifier: Classifier, points: Images, labels: Labels) -> Float[Tensor, " batch"]:
    return torch.nn.functional.cross_entropy(classifier.answer(points).logits, labels, reduction="none")


def _gradient(classifier: Classifier, images: Images, labels: Labels) -> Images:
    """The gradient of the summed loss; zero where the logits do not depend on the images."""
    points = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = _losses(classifier, points.clone(), labels).sum()
        if not loss.requires_grad:
            return torch.zeros_like(images)
        (gradient,) = torch.autograd.grad(loss, points, allow_unused=True, materialize_grads=True)
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def _adjoint_curve(classifier: Classifier, images: Images) -> dict[str, JsonValue]:
    """The median cosine of the adjoint's gradient with the direct one, at shares of the horizon; None where it
    fails."""
    whole = classifier.horizon or 1.0
    horizons: list[JsonValue] = [whole * share for share in HORIZON_SHARES]
    cosines: list[JsonValue] = [_adjoint_cosine(classifier, images, whole * share) for share in HORIZON_SHARES]
    return {"horizons": horizons, "adjoint_cosine": cosines}


def _adjoint_cosine(classifier: Classifier, images: Images, horizon: float) -> float | None:
    try:
        direct = classifier.modified(horizon=horizon)
        adjoint = classifier.modified(horizon=horizon, gradient="adjoint")
        with torch.no_grad():
            # One class for both: the two solvers need not agree on the runner-up.
            runner_up = direct.answer(images.clone()).logits.topk(2, dim=1).indices[:, 1]
        found = [_gradient(one, images, runner_up).flatten(1) for one in (direct, adjoint)]
    except torch.OutOfMemoryError:
        raise
    except Exception:  # the backward solve does not end, takes too many steps, or has no gradient
        return None
    some = found[0].norm(dim=1) > 0
    if not some.any():
        return None
    return float(torch.nn.functional.cosine_similarity(found[0][some], found[1][some], dim=1).median())
