"""Whether the gradient that attacks follow is that of the function which is deployed."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int
from pydantic import JsonValue
from torch import Tensor

from odebench.evaluation.checks.rule import skipped, threshold_check
from odebench.io.text import first_line
from odebench.model.classifier import Classifier, Gradient
from odebench.result.schema import Check

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]

FIDELITY = 17
DIRECTIONS = 8
FIDELITY_IMAGES = 32
"""How many clean-correct images of the first chunk are looked at."""
FIDELITY_THRESHOLD = 0.95
WRONG, WRONG_SHARE = 0.5, 1 / 8
"""A gradient with a cosine below this is wrong; of more than this share of the images none may be."""
STEP = 1e-6
"""Half the distance of a central difference, in units of the image range."""
INSIDE = 2e-5
"""How far from black and white the pixels are kept, so that no difference reaches across the edge of the range: there
a model that clips its input has a kink, whose slope is that of neither side."""
HORIZON_SHARES = (0.25, 0.5, 1.0, 2.0)
"""The horizons, as shares of the model's, at which the adjoint's gradient is compared."""
_NAME = "gradient fidelity"


def gradient_fidelity(classifier: Classifier, images: Images, *, seed: int = 0, adjoint: bool = False) -> Check:
    """Check 17: the gradient that the attack uses against central differences in fp64, along 8 random directions.

    Of the cross-entropy of the runner-up class, which does not saturate where the model is sure. Flags when the
    cosine, in the median over the images, is below 0.95, or below 0.5 for more than an eighth of them. (Under an
    adaptive solver some honest gradients are off, since they leave out how the steps depend on the image.) With
    `adjoint` the evidence holds the cosine of the direct gradient with that of the adjoint equation at several
    horizons, for an ODE classifier; it is shown, not judged.
    """
    images = images[:FIDELITY_IMAGES].to(classifier.device)
    if not len(images):
        return skipped(17, _NAME, speaks_of="model", why="no image is classified correctly")
    images = images.clamp(INSIDE, 1 - INSIDE)
    try:
        cosines = _cosines(classifier, images, seed)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a module raises where it is copied, asked in fp64, or sent backward
        why = f"the model cannot be asked in fp64 ({first_line(error)})"
        return skipped(17, _NAME, speaks_of="model", why=why)
    if not len(cosines):
        why = "neither the gradient nor the differences are other than zero: there is nothing to compare"
        return skipped(17, _NAME, speaks_of="model", why=why)
    evidence: dict[str, JsonValue] = {"images": len(images), "compared": len(cosines)}
    if adjoint and classifier.horizon is not None:
        evidence |= _adjoint_curve(classifier, images)
    median, wrong = float(cosines.median()), int((cosines < WRONG).sum())
    evidence["below"], evidence["wrong"] = int((cosines < FIDELITY_THRESHOLD).sum()), wrong
    return threshold_check(
        17,
        _NAME,
        speaks_of="model",
        flagged=median < FIDELITY_THRESHOLD or wrong > WRONG_SHARE * len(cosines),
        figure=median,
        threshold=FIDELITY_THRESHOLD,
        why="cosine of the attack's gradient with central differences: a gradient of another function hides falls; "
        "differentiate through the solver that is deployed, without adjoint, rounding or a detached part",
        evidence=evidence,
    )


def _cosines(classifier: Classifier, images: Images, seed: int) -> Float[Tensor, " compared"]:
    """The cosine of each image's two vectors of directional derivatives, where either is not zero."""
    exact = Classifier(
        copy.deepcopy(classifier.module).double(),
        n_classes=classifier.n_classes,
        device=classifier.device,
        horizon=classifier.horizon,
        solver=classifier.solver,
    )
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn((DIRECTIONS, *images.shape), generator=generator, dtype=torch.float64).to(images.device)
    doubles = images.double()
    with torch.no_grad():
        runner_up = exact.answer(doubles.clone()).logits.topk(2, dim=1).indices[:, 1]
    gradient = _gradient(classifier, images, runner_up).double()
    used = (directions * gradient).flatten(2).sum(2)
    with torch.no_grad(), exact.frozen():
        differences = [
            _losses(exact, doubles + STEP * direction, runner_up)
            - _losses(exact, doubles - STEP * direction, runner_up)
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
    """The median cosine of the adjoint's gradient with the direct one, at shares of the horizon; null: it failed."""
    whole = classifier.horizon or 1.0
    horizons: list[JsonValue] = [whole * share for share in HORIZON_SHARES]
    cosines: list[JsonValue] = [_adjoint_cosine(classifier, images, whole * share) for share in HORIZON_SHARES]
    return {"horizons": horizons, "adjoint_cosine": cosines}


def _adjoint_cosine(classifier: Classifier, images: Images, horizon: float) -> float | None:
    kinds: list[Gradient] = ["direct", "adjoint"]
    try:
        direct, adjoint = (
            Classifier(
                classifier.module,
                n_classes=classifier.n_classes,
                device=classifier.device,
                horizon=horizon,
                solver=classifier.solver,
                gradient=kind,
            )
            for kind in kinds
        )
        with torch.no_grad():
            # Of one and the same class: two solvers of a batch need not agree on the runner-up.
            runner_up = direct.answer(images.clone()).logits.topk(2, dim=1).indices[:, 1]
        found = [_gradient(one, images, runner_up).flatten(1) for one in (direct, adjoint)]
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a backward solve that does not end, too many steps, a field that no gradient passes
        return None
    some = found[0].norm(dim=1) > 0
    if not some.any():
        return None
    return float(torch.nn.functional.cosine_similarity(found[0][some], found[1][some], dim=1).median())
