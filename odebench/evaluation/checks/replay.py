"""The second half of check 17: gradients that an attack received, held against the function that is deployed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from odebench.evaluation.checks.gradient import (
    DIRECTIONS,
    INSIDE,
    NOTHING,
    STEP,
    WRONG_COSINE,
    WRONG_SHARE,
    in_batches,
)
from odebench.evaluation.checks.rule import COUNT_THRESHOLD, skipped
from odebench.io.text import first_line
from odebench.model.classifier import Classifier
from odebench.model.process_classifier import DrawnGradient
from odebench.numerics.statistics import wilson_lower
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

LEAST_WRONG = 3
"""So many gradients must be false in any case: one may lie at a kink."""
FEW_DIRECTIONS, CLEAR_COSINE = 4, 0.99
"""A gradient that agrees so well along the first directions is not asked about the others."""
LEAST_GIVEN, LEAST_TRUE = 1e-9, 1e-6
"""Slopes of logits along a random direction that count as none, by the gradient and by differences in fp64."""


def with_replay(check: Check, classifier: Classifier, received: Sequence[DrawnGradient], *, alone: bool) -> Check:
    """Check 17 of points of its own, with what the gradients say that an attack `received`: a model may know an attack
    by its images, its losses or its calls, and give false gradients only there.

    k of n gradients have a cosine below 0.5 with the differences in fp64. The check flags, too, where Wilson's lower
    bound of k / n is above 1% and k is at least 3, or, under an adaptive solver, whose correct gradient differs at
    times, where k is more than an eighth of n. It stays as it is where nothing was received, or where it was skipped
    itself. `alone`: every point is asked in a batch of its own.
    """
    if check.status == "skipped" or not received:
        return check
    try:
        found = cosines(classifier, received, alone=alone)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a module may raise anything
        if check.status == "flag":
            return check
        why = f"the model cannot be evaluated in fp64 where it was attacked ({first_line(error)})"
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why=why)
    compared = found[found < NOTHING]
    wrong, count = int((compared < WRONG_COSINE).sum()), len(compared)
    evidence = {**check.evidence, "replayed": count, "replayed_wrong": wrong}
    if classifier.solver is not None and classifier.solver.adaptive:
        flagged = wrong > WRONG_SHARE * count
    else:
        flagged = wrong >= LEAST_WRONG and wilson_lower(wrong, count) > COUNT_THRESHOLD
    if not flagged:
        return check.model_copy(update={"evidence": evidence})
    why = f"{wrong} of {count} gradients that the attack received are not those of the model; {check.why}"
    return check.model_copy(update={"status": "flag", "why": why, "evidence": evidence})


def cosines(
    classifier: Classifier,
    received: Sequence[DrawnGradient],
    *,
    alone: bool,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " gradients"]:
    """The cosine of each gradient with central differences in fp64 along 8 random directions, or 4 where it is at least
    0.99 along these; 2 where neither is other than zero. One that is not finite counts as zero.

    Where pixels are black or white, differences go inwards and to one side. Of these pixels the ones whose gradient is
    exactly zero stay where they are: torch has none at the end of a clip, and an attack takes another there. `alone`:
    every point is asked in a batch of its own. Without a `generator` the directions are those of seed 0.
    """
    images, cotangents, gradients = (
        torch.stack([getattr(one, part) for one in received]).to(classifier.device).double()
        for part in ("image", "cotangent", "gradient")
    )
    with torch.no_grad():
        # A module that keeps what it was last asked cannot be copied together with a graph.
        classifier.answer(images[:1].float())
    double = classifier.in_fp64()
    scale = cotangents.abs().amax(1)
    gradients = gradients.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    cotangents, gradients = cotangents / scale[:, None], gradients / scale[:, None, None, None]
    black, white = images <= INSIDE, images >= 1 - INSIDE
    border = black | white
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    directions = torch.randn((DIRECTIONS, *images.shape), generator=generator, dtype=torch.float64).to(images.device)
    inwards = directions.abs() * torch.where(black, 1.0, -1.0)
    directions = torch.where(border, torch.where(gradients == 0, 0.0, inwards), directions)
    one_sided = (border & (gradients != 0)).flatten(1).any(1)

    def values(moved: Float[Tensor, "directions some channels height width"], rows: Tensor) -> Tensor:
        # Always as many at once: a model that draws random numbers draws the same for both ends of a difference.
        logits = in_batches(lambda part: double.answer(part).logits, moved.flatten(0, 1), 1 if alone else len(rows))
        return (logits.view(len(moved), len(rows), -1) * cotangents[rows]).sum(2)

    def slopes(directions: Float[Tensor, "directions some channels height width"], rows: Tensor) -> Tensor:
        """Of some of the images, by differences."""
        sided, around = one_sided[rows], images[rows]
        moves = STEP * directions
        starts = around[None] if sided.all() else around - moves * ~sided[:, None, None, None]
        return (values(around + moves, rows) - values(starts, rows)) / torch.where(sided, STEP, 2 * STEP)

    given = (directions * gradients).flatten(2).sum(2)
    every = torch.arange(len(images), device=images.device)
    with torch.no_grad(), double.frozen():
        true = slopes(directions[:FEW_DIRECTIONS], every)
        found = _cosine(given[:FEW_DIRECTIONS], true)
        if len(rest := every[found < CLEAR_COSINE]):
            others = slopes(directions[FEW_DIRECTIONS:, rest], rest)
            found[rest] = _cosine(given[:, rest], torch.cat([true[:, rest], others]))
    return found.cpu()


def _cosine(given: Tensor, true: Tensor) -> Float[Tensor, " gradients"]:
    found = torch.nn.functional.cosine_similarity(given, true, dim=0, eps=1e-30)
    some = (given.norm(dim=0) > LEAST_GIVEN) | (true.norm(dim=0) > LEAST_TRUE)
    return torch.where(some, found, NOTHING)
