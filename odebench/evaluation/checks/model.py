"""Checks of the model: its gradient, determinism, logits and independence of the batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odebench.errors import ModelError, OdebenchError
from odebench.evaluation.checks.rule import count_check, threshold_check
from odebench.evaluation.verdict import Judge
from odebench.io.text import first_line
from odebench.model.classifier import Classifier
from odebench.numerics.projection import project
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

DETERMINISM_PASSES, REPEATS = 5, 3
"""Seeds, and how often each is given again to a random model."""
DETERMINISM_THRESHOLD = 1e-4
MEAN_IMAGES, MEAN_PASSES = 32, 20
MEAN_DEVIATIONS = 6.0
"""Two means of a randomised model's logits differ if they are more than so many standard errors apart."""
PROBABILITY_TOLERANCE = 1e-5


def useless_gradients(classifier: Classifier, images: Images, labels: Labels) -> int:
    """How many images have an input gradient of the cross-entropy that is zero everywhere, or not finite.

    All of them if the logits do not depend on the input differentiably. Raises ModelError if the backward pass raises.
    The caller seeds the generators of a randomised model.
    """
    points = images.detach().clone().to(classifier.device).requires_grad_()
    with torch.enable_grad():
        logits = classifier.answer(points.clone()).logits
        if not logits.requires_grad:
            return len(images)
        loss = torch.nn.functional.cross_entropy(logits, labels.to(classifier.device), reduction="sum")
        try:
            (gradient,) = torch.autograd.grad(loss, points, allow_unused=True, materialize_grads=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            kind = "" if isinstance(error, OdebenchError) else f"{type(error).__name__}: "
            said = f"{kind}{first_line(error)}"
            raise ModelError(f"the gradient of {classifier.name} cannot be taken: {said}") from error
    flat = gradient.flatten(1)
    return int(((flat == 0).all(1) | ~flat.isfinite().all(1)).sum())


def gradient_availability(k: int, n: int) -> Check:
    """Check 1 (Pintor et al. 2022; AutoAttack): k of n images from which a gradient attack learns nothing."""
    why = (
        "clean-correct images whose whole input gradient is zero or not finite: gradient attacks learn nothing "
        "there; use transfer and black-box attacks, and look for rounding, saturation or a detached solver"
    )
    return count_check(CheckId.GRADIENT_AVAILABILITY, speaks_of="model", k=k, n=n, why=why)


def determinism(classifier: Classifier, images: Images, *, alone: bool, seed: int = 0) -> Check:
    """Check 2 (AutoAttack): five passes over the same images, generators seeded differently each time.

    Flags when a label changes or a logit, relative to the image's largest |logit|, differs by more than 1e-4. In the
    evidence, `seeded` says whether the same seeds give the same logits again: of a flagged model all five are asked
    three times more, since one that draws among few values without a seed may repeat itself by chance.
    """
    judge = Judge(classifier, alone=alone)

    def answered(index: int) -> Tensor:
        with seeded(seed + index):
            return judge.answer(images).logits

    logits = torch.stack([answered(index) for index in range(DETERMINISM_PASSES)])
    largest = logits.abs().amax(dim=(0, 2)).clamp_min(1e-12)
    spread = float(((logits.amax(0) - logits.amin(0)).amax(1) / largest).max())
    changed = int((logits.argmax(2) != logits[0].argmax(1)).any(0).sum())
    flagged = changed > 0 or spread > DETERMINISM_THRESHOLD
    tolerance = DETERMINISM_THRESHOLD * float(largest.max())
    repeated = [*range(DETERMINISM_PASSES)] * REPEATS if flagged else []
    return threshold_check(
        CheckId.DETERMINISM,
        speaks_of="model",
        flagged=flagged,
        figure=spread,
        threshold=DETERMINISM_THRESHOLD,
        why="spread of logits over five passes: a random model needs attacks that average over its randomness",
        evidence={
            "labels_changed": changed,
            "passes": DETERMINISM_PASSES,
            "seeded": all(torch.allclose(answered(one), logits[one], rtol=0, atol=tolerance) for one in repeated),
        },
    )


def logits_not_probabilities(logits: Float[Tensor, "n classes"]) -> Check:
    """Check 3 (AutoAttack): flags when all rows lie within [0, 1] and sum to 1: probabilities flatten the loss."""
    rows = logits[logits.abs().sum(1) > 0]
    inside = ((rows >= 0) & (rows <= 1)).all(1) & ((rows.sum(1) - 1).abs() < PROBABILITY_TOLERANCE)
    share = float(inside.float().mean()) if len(rows) else 0.0
    return threshold_check(
        CheckId.LOGITS_NOT_PROBABILITIES,
        speaks_of="model",
        flagged=len(rows) > 0 and bool(inside.all()),
        figure=share,
        threshold=1.0,
        why="share of outputs that are probabilities: hand over the logits, without softmax",
    )


def batch_independence(classifier: Classifier, images: Images, labels: Labels, *, norm: str, epsilon: float) -> Check:
    """Check 15: the same points in batches, in a permuted batch and alone; k of n images move.

    The points are the clean images and one random point within `epsilon` of each. An image moves if its outcome
    changes, or a logit by more than 1e-4 of the image's largest |logit|.
    """
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(images.shape, generator=generator) * 2 - 1) * epsilon
    points = torch.cat([images, project(images, images + noise, norm=norm, epsilon=epsilon)])
    twice = torch.cat([labels, labels])
    order = torch.randperm(len(points), generator=generator)
    batch, single = Judge(classifier), Judge(classifier, alone=True)
    plain, alone = (judge.opinion(points, twice, of=points) for judge in (batch, single))
    permuted = batch.opinion(points[order], twice[order], of=points[order])
    back = order.argsort()
    moved = torch.zeros(len(points), dtype=torch.bool)
    largest = alone.answer.logits.abs().amax(1).clamp_min(1e-12)
    for other, rows in ((plain, torch.arange(len(points))), (permuted, back)):
        moved |= (other.correct[rows] != alone.correct) | (other.failed[rows] != alone.failed)
        gap = (other.answer.logits[rows] - alone.answer.logits).abs().amax(1)
        moved |= gap > DETERMINISM_THRESHOLD * largest
    moved = moved.reshape(2, -1).any(0)
    return count_check(
        CheckId.BATCH_INDEPENDENCE,
        speaks_of="model",
        k=int(moved.sum()),
        n=len(images),
        why="letters or logits that move between batch, permuted batch and alone: a flagged model is attacked and "
        "judged image by image",
    )


def mean_batch_independence(classifier: Classifier, images: Images, *, seed: int = 0) -> Check:
    """Check 15 of a randomised model: clean images in one batch and alone, MEAN_PASSES each; k of n images move.

    An image moves if the two means of a logit lie more than six standard errors apart and differ by more than 1e-4 of
    the image's largest |logit|.
    """
    images = images[:MEAN_IMAGES]
    means, variances = [], []
    for alone in (False, True):
        judge, passes = Judge(classifier, alone=alone), []
        for index in range(MEAN_PASSES):
            with seeded(seed + index):
                passes.append(judge.answer(images).logits.double())
        logits = torch.stack(passes)
        means.append(logits.mean(0))
        variances.append(logits.var(0) / MEAN_PASSES)
    gap, error = (means[0] - means[1]).abs(), (variances[0] + variances[1]).sqrt()
    largest = means[1].abs().amax(1, keepdim=True).clamp_min(1e-12)
    moved = ((gap > MEAN_DEVIATIONS * error) & (gap > DETERMINISM_THRESHOLD * largest)).any(1)
    return count_check(
        CheckId.BATCH_INDEPENDENCE,
        speaks_of="model",
        k=int(moved.sum()),
        n=len(images),
        why="mean logits that move between batch and alone: a flagged model is attacked image by image",
        evidence={"passes": MEAN_PASSES},
    )
