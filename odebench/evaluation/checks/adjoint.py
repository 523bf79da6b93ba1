"""How well the adjoint's gradient agrees with the direct one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import JsonValue
from torch import Tensor

from odebench.model.classifier import Classifier
from odebench.numerics.shapes import Images, Labels

HORIZON_SHARES = (0.25, 0.5, 1.0, 2.0)
"""The horizons, as shares of the model's, at which the adjoint's gradient is compared."""


def adjoint_curve(classifier: Classifier, images: Images) -> dict[str, JsonValue]:
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
