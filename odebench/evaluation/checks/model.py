"""Checks that question the model: its gradient, determinism, logits, independence of the batch, failures."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.errors import ModelError
from odebench.evaluation.checks.rule import count_check, skipped, threshold_check
from odebench.evaluation.verdict import Judge
from odebench.io.text import first_line
from odebench.model.classifier import Classifier
from odebench.numerics.projection import project
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import Norm, Solver
from odebench.result.schema import Check

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]

DETERMINISM_PASSES = 5
DETERMINISM_THRESHOLD = 1e-4
MEAN_IMAGES, MEAN_PASSES = 32, 20
MEAN_DEVIATIONS = 6.0
"""How many standard errors apart two means of a randomised model's logits are taken for different."""
PROBABILITY_TOLERANCE = 1e-5


def useless_gradients(classifier: Classifier, images: Images, labels: Labels) -> int:
    """How many images have an input gradient of the cross-entropy that is zero everywhere, or not finite.

    All of them where the logits do not depend on the input differentiably. Raises ModelError where the backward
    pass raises. A randomised model should be asked with its generators seeded.
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
            name = type(classifier.module).__name__
            raise ModelError(f"the gradient of {name} cannot be taken: {first_line(error)}") from error
    flat = gradient.flatten(1)
    return int(((flat == 0).all(1) | ~flat.isfinite().all(1)).sum())


def gradient_availability(k: int, n: int) -> Check:
    """Check 1 (Pintor et al. 2022; AutoAttack): images from which a gradient attack learns nothing."""
    why = (
        "clean-correct images whose whole input gradient is zero or not finite: gradient attacks learn nothing "
        "there; use transfer and black-box attacks, and look for rounding, saturation or a detached solver"
    )
    return count_check(1, "gradient availability", speaks_of="model", k=k, n=n, why=why)


def determinism(classifier: Classifier, images: Images, *, alone: bool, seed: int = 0) -> Check:
    """Check 2 (AutoAttack): five passes over the same images, generators seeded differently each time.

    Flags when a label changes or a logit, relative to the image's largest |logit|, differs by more than 1e-4. The
    evidence says whether the generators' seed decides (`seeded`): whether the first pass can be had once more.
    """
    judge = Judge(classifier, alone=alone)
    passes = []
    for index in (*range(DETERMINISM_PASSES), 0):
        with seeded(seed + index):
            passes.append(judge.answer(images).logits)
    again = passes.pop()
    logits = torch.stack(passes)
    largest = logits.abs().amax(dim=(0, 2)).clamp_min(1e-12)
    spread = float(((logits.amax(0) - logits.amin(0)).amax(1) / largest).max())
    changed = int((logits.argmax(2) != logits[0].argmax(1)).any(0).sum())
    return threshold_check(
        2,
        "determinism",
        speaks_of="model",
        flagged=changed > 0 or spread > DETERMINISM_THRESHOLD,
        figure=spread,
        threshold=DETERMINISM_THRESHOLD,
        why="spread of logits over five passes: a random model needs attacks that average over its randomness",
        evidence={
            "labels_changed": changed,
            "passes": DETERMINISM_PASSES,
            "seeded": bool(torch.allclose(again, passes[0], rtol=0, atol=DETERMINISM_THRESHOLD * float(largest.max()))),
        },
    )


def logits_not_probabilities(logits: Float[Tensor, "n classes"]) -> Check:
    """Check 3 (AutoAttack): rows within [0, 1] that sum to 1 are probabilities, which flatten the loss."""
    rows = logits[logits.abs().sum(1) > 0]
    inside = ((rows >= 0) & (rows <= 1)).all(1) & ((rows.sum(1) - 1).abs() < PROBABILITY_TOLERANCE)
    share = float(inside.float().mean()) if len(rows) else 0.0
    return threshold_check(
        3,
        "logits, not probabilities",
        speaks_of="model",
        flagged=len(rows) > 0 and bool(inside.all()),
        figure=share,
        threshold=1.0,
        why="share of outputs that are probabilities: hand over the logits, without softmax",
    )


def batch_independence(classifier: Classifier, images: Images, labels: Labels, *, norm: str, epsilon: float) -> Check:
    """Check 15: fixed points in batches, in a permuted batch and alone; k of n images move: another letter, or a logit
    that differs by more than 1e-4 of the image's largest.

    The points are the clean images and one random point within `epsilon` of each.
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
        15,
        "batch independence",
        speaks_of="model",
        k=int(moved.sum()),
        n=len(images),
        why="letters or logits that move between batch, permuted batch and alone: a flagged model is attacked and "
        "judged image by image",
    )


def mean_batch_independence(classifier: Classifier, images: Images, *, seed: int = 0) -> Check:
    """Check 15 of a randomised model: clean images in one batch and alone, 20 passes each; k of n images move.

    An image moves where the means of a logit lie more than six standard errors apart, and by more than 1e-4 of the
    image's largest.
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
        15,
        "batch independence",
        speaks_of="model",
        k=int(moved.sum()),
        n=len(images),
        why="mean logits that move between batch and alone: a flagged model is attacked image by image",
        evidence={"passes": MEAN_PASSES},
    )


def finer(solver: Solver) -> Solver:
    """Half the step, or a tenth of the tolerances (with room for the more steps that these take)."""
    if solver.step is not None:
        return solver.model_copy(update={"step": solver.step / 2})
    tighter = {name: getattr(solver, name) / 10 for name in ("rtol", "atol")}
    return solver.model_copy(update={**tighter, "max_steps": 10 * (solver.max_steps or 1)})


def solver_gap(
    judge: Judge, images: Images, labels: Labels, candidates: Images, *, norm: Norm, epsilon: float
) -> Check:
    """Check 16 (Ott et al. 2021): images whose letter, clean or at its candidate, moves under a finer solver.

    `images` are clean-correct under the solver of `judge`, each with one of the `candidates`.
    """
    name, declared = "solver gap", judge.classifier.solver
    if declared is None:
        return skipped(16, name, speaks_of="model", why="the model integrates nothing that odebench could refine")
    if not len(images):
        return skipped(16, name, speaks_of="model", why="no image is classified correctly")
    asked = Classifier(
        judge.classifier.module,
        n_classes=judge.classifier.n_classes,
        device=judge.classifier.device,
        horizon=judge.classifier.horizon,
        solver=finer(declared),
    )
    fine = Judge(asked, alone=judge.alone, passes=judge.passes, seed=judge.seed)
    moved = fine.clean(images, labels) != "r"
    before, after = (
        one.candidates(images, labels, candidates, norm=norm, epsilon=epsilon).letters for one in (judge, fine)
    )
    moved |= before != after
    return count_check(
        16,
        name,
        speaks_of="model",
        k=int(moved.sum()),
        n=len(images),
        why="images whose letter moves under half the step or a tenth of the tolerance: the solver's error decides, "
        "not the field; declare a finer solver, or say that the discretisation is the model",
        evidence={"declared": str(declared), "finer": str(finer(declared))},
    )


def solver_failure(outcomes: str) -> Check:
    """Check 18: images on which the solver failed, or a logit was not finite, clean (u) or under attack (x)."""
    return count_check(
        18,
        "solver failure",
        speaks_of="model",
        k=outcomes.count("u") + outcomes.count("x"),
        n=len(outcomes),
        why="images lost to a failing solver: they are counted as errors; raise the step limit or loosen the field",
        evidence={"clean": outcomes.count("u"), "attacked": outcomes.count("x")},
    )
