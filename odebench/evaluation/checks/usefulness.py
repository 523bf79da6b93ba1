"""Whether gradients tell anything at the scale at which attacks move: checks 20 and 21."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odebench.attack.wrapped_model import WrappedModel
from odebench.attack.zero_gradient import REACH
from odebench.evaluation.checks.gradient import TOGETHER, in_batches
from odebench.evaluation.checks.rule import skipped, threshold_check
from odebench.model.classifier import Classifier
from odebench.numerics.shapes import Images, Labels
from odebench.protocol.spec import Norm
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

IMAGES, DIRECTIONS = 32, 16
USEFUL_THRESHOLD = 0.7


def useful_gradient(
    classifier: Classifier, images: Images, *, norm: Norm, epsilon: float, alone: bool = False, seed: int = 0
) -> Check:
    """Check 20: the gradient against central differences at the scale of epsilon / 4, along 16 random directions.

    The loss is the margin of the runner-up class. Flags when the median cosine over the images is below 0.7: a
    true gradient of a ripple, or the gradient of a plateau, leads nowhere.
    """
    images = images[:IMAGES].to(classifier.device)
    if not len(images):
        return skipped(CheckId.USEFUL_GRADIENT, speaks_of="model", why="no image is classified correctly")
    cosines = scale_cosines(classifier, images, norm=norm, epsilon=epsilon, alone=alone, seed=seed)
    median = float(cosines.median())
    return threshold_check(
        CheckId.USEFUL_GRADIENT,
        speaks_of="model",
        flagged=median < USEFUL_THRESHOLD,
        figure=median,
        threshold=USEFUL_THRESHOLD,
        why="cosine of the gradient with differences at a quarter of epsilon: a gradient that leads nowhere at the "
        "scale of the attack hides adversarial examples; smooth it, or trust attacks that use logits alone",
        evidence={"images": len(images), "below": int((cosines < USEFUL_THRESHOLD).sum())},
    )


def scale_cosines(
    classifier: Classifier, images: Images, *, norm: Norm, epsilon: float, alone: bool = False, seed: int = 0
) -> Float[Tensor, " batch"]:
    """For each image the cosine, over random directions, of directional derivatives with central differences whose
    ends lie epsilon / 4 away; 0 where the derivatives are all zero, 1 where both are."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn((DIRECTIONS, *images.shape), generator=generator).to(images.device)
    if norm == "linf":
        directions = directions.sign() * epsilon * REACH
    else:
        directions = directions / directions.flatten(2).norm(dim=2)[..., None, None, None] * epsilon * REACH
    # Inside [0, 1], where the model is asked: a pixel near a border is moved to one side only.
    ends, starts = (images + directions).clamp(0, 1), (images - directions).clamp(0, 1)
    wrapped = WrappedModel(classifier, alone=alone)
    wrapped.at_scale_of(norm, epsilon)
    points = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = wrapped(points)
        runner_up = logits.topk(2, dim=1).indices[:, 1]
        (gradient,) = torch.autograd.grad(_losses(logits, runner_up).sum(), points)
    used = ((ends - starts).double() * gradient.double()).flatten(2).sum(2)
    labels = runner_up.repeat(DIRECTIONS)
    with torch.no_grad():
        above, below = (_losses(in_batches(wrapped, moved.flatten(0, 1), TOGETHER), labels) for moved in (ends, starts))
    true = (above - below).view(DIRECTIONS, -1)
    # Lengths are taken out before they are multiplied: logits may be of any scale.
    used, true = (one / one.abs().amax(0).clamp_min(1e-300) for one in (used, true))
    cosines = torch.nn.functional.cosine_similarity(used, true, dim=0)
    neither = (used.norm(dim=0) == 0) & (true.norm(dim=0) == 0)
    found: Tensor = torch.where(neither, 1.0, cosines).cpu()
    return found


def _losses(logits: Tensor, labels: Labels) -> Float[Tensor, " batch"]:
    """The margin of a class over the likeliest other, in fp64: neither saturated nor rounded away at any scale."""
    logits, own = logits.double(), labels[:, None]
    other = logits.scatter(1, own, -torch.inf).amax(1)
    margin: Tensor = logits.gather(1, own).squeeze(1) - other
    return margin


def zero_gradients(
    classifier: Classifier, images: Images, labels: Labels, *, norm: Norm, epsilon: float, alone: bool = False
) -> Check:
    """Check 21: images in which a pixel's gradient is exactly zero and that of a point epsilon / 4 inside is not.

    It informs and flags nothing, since attacks use the second.
    """
    if not len(images):
        return skipped(CheckId.ZERO_GRADIENTS, speaks_of="model", why="no image is classified correctly")
    gradients = []
    for completed in (False, True):
        wrapped = WrappedModel(classifier, alone=alone)
        if completed:
            wrapped.at_scale_of(norm, epsilon)
        points = images.detach().clone().to(classifier.device).requires_grad_()
        with torch.enable_grad():
            loss = torch.nn.functional.cross_entropy(wrapped(points), labels.to(classifier.device), reduction="sum")
            gradients.append(torch.autograd.grad(loss, points)[0])
    differ = (gradients[0] != gradients[1]) & (gradients[0] == 0)
    return threshold_check(
        CheckId.ZERO_GRADIENTS,
        speaks_of="model",
        flagged=False,
        figure=float(differ.flatten(1).any(1).float().mean()),
        threshold=1.0,
        why="share of images with a pixel whose gradient is exactly zero, and not so a quarter of epsilon further in, "
        "as at the ends of a clip: attacks use the second",
        evidence={"images": len(images), "share_of_pixels": float(differ.float().mean())},
    )
