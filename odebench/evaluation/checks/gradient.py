"""Whether the gradient that attacks follow is that of the function which is deployed."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from pydantic import JsonValue
from torch import Tensor

from odebench.evaluation.checks.rule import skipped, threshold_check
from odebench.io.text import first_line
from odebench.model.classifier import Classifier
from odebench.numerics.shapes import Images, Labels
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

DIRECTIONS = 8
FIDELITY_IMAGES = 32
"""How many images of the first chunk are used, of those classified correctly."""
FIDELITY_THRESHOLD = 0.95
WRONG_COSINE, WRONG_SHARE = 0.5, 1 / 8
"""A gradient with a cosine below the first is wrong; the check flags if it is for more than this share of images."""
STEP = 1e-6
"""Half the distance of a central difference, in units of the image range."""
INSIDE = 2e-5
"""How far from black and white the pixels are kept, so that no difference reaches across the edge of the range, where a
model that clips its input has a kink."""
HORIZON_SHARES = (0.25, 0.5, 1.0, 2.0)
"""The horizons, as shares of the model's, at which the adjoint's gradient is compared."""


def gradient_fidelity(classifier: Classifier, images: Images, *, seed: int = 0, adjoint: bool = False) -> Check:
    """Check 17: the gradient that the attack uses against central differences in fp64, along 8 random directions.

    The loss is the cross-entropy of the runner-up class, which does not saturate where the model is sure. Flags when
    the median cosine over the images is below 0.95, or when the cosine is below 0.5 for more than an eighth of them.
    (Under an adaptive solver some correct gradients differ, since they ignore how the steps depend on the image.) With
    `adjoint`, the evidence for an ODE classifier also holds the cosine of the direct gradient with that of the adjoint
    equation at several horizons; it does not decide the status.
    """
    images = images[:FIDELITY_IMAGES].to(classifier.device)
    if not len(images):
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why="no image is classified correctly")
    images = images.clamp(INSIDE, 1 - INSIDE)
    try:
        cosines = _cosines(classifier, images, seed)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # copying a module, calling it in fp64 or going backward may raise anything
        line = first_line(error)
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why=f"the model cannot be asked in fp64 ({line})")
    if not len(cosines):
        why = "neither the gradient nor the differences are other than zero: there is nothing to compare"
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why=why)
    evidence: dict[str, JsonValue] = {"images": len(images), "compared": len(cosines)}
    if adjoint and classifier.horizon is not None:
        evidence |= _adjoint_curve(classifier, images)
    median, wrong = float(cosines.median()), int((cosines < WRONG_COSINE).sum())
    evidence["below"], evidence["wrong"] = int((cosines < FIDELITY_THRESHOLD).sum()), wrong
    return threshold_check(
        CheckId.GRADIENT_FIDELITY,
        speaks_of="model",
        flagged=median < FIDELITY_THRESHOLD or wrong > WRONG_SHARE * len(cosines),
        figure=median,
        threshold=FIDELITY_THRESHOLD,
        why="cosine of the attack's gradient with central differences: a gradient of another function hides falls; "
        "differentiate through the solver that is deployed, without adjoint, rounding or a detached part",
        evidence=evidence,
    )


def _cosines(classifier: Classifier, images: Images, seed: int) -> Float[Tensor, " compared"]:
    """The cosine between directional derivatives and differences, for each image where either is not zero."""
    double = classifier.modified(module=copy.deepcopy(classifier.module).double())
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn((DIRECTIONS, *images.shape), generator=generator, dtype=torch.float64).to(images.device)
    doubles = images.double()
    with torch.no_grad():
        runner_up = double.answer(doubles.clone()).logits.topk(2, dim=1).indices[:, 1]
    gradient = _gradient(classifier, images, runner_up).double()
    used = (directions * gradient).flatten(2).sum(2)
    with torch.no_grad(), double.frozen():
        differences = [
            _losses(double, doubles + STEP * direction, runner_up)
            - _losses(double, doubles - STEP * direction, runner_up)
            for direction in directions
        ]
    true = torch.stack(differences) / (2 * STEP)
    some = (used.norm(dim=0) > 0) | (true.norm(dim=0) > 1e-9)
    return torch.nn.functional.cosine_similarity(used[:, some], true[:, some], dim=0).cpu()


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
    """The median cosine of the adjoint's gradient with the direct one, by horizon; None where it fails."""
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
