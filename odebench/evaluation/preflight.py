"""What is known of a model before it is attacked: how it must be asked, its clean letters, its gradient."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.evaluation.checks.gradient import gradient_fidelity
from odebench.evaluation.checks.model import (
    batch_independence,
    determinism,
    mean_batch_independence,
    useless_gradients,
)
from odebench.evaluation.checks.rule import skipped
from odebench.evaluation.verdict import RANDOMISED_PASSES, Judge, Opinion
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import seeded
from odebench.progress import Progress
from odebench.protocol.spec import Evaluation
from odebench.result.schema import Check

Images = Float[Tensor, "n channel height width"]
Labels = Int[Tensor, " n"]

ALL = slice(None)


@dataclass(frozen=True)
class Preflight:
    """The clean letters and the first checks of one model on one slice; several attacks may build on it.

    `checks` are those of the first chunk of the evaluation, `useless` counts the images of check 1. `opaque`: whether
    the gradient of a module of which nothing is known could not be confirmed. `slowest` is the longest that the
    gradients of one chunk took, `seconds` what the clean answers took.
    """

    alone: bool
    passes: int
    seed: int
    opinion: Opinion
    clean: np.ndarray
    checks: tuple[Check, ...]
    useless: int
    opaque: bool
    forward_images: int
    slowest: float
    seconds: float

    def judge(self, classifier: Classifier) -> Judge:
        """A judge that asks as the checks demand, and has asked about the clean images."""
        judge = Judge(classifier, alone=self.alone, passes=self.passes, seed=self.seed)
        judge.forward_images = self.forward_images
        return judge


def chunks(evaluation: Evaluation, n: int) -> list[np.ndarray]:
    """The positions of the images of each chunk of a slice of n."""
    size = evaluation.chunk
    return [np.arange(first, min(first + size, n)) for first in range(0, n, size)]


def run_preflight(
    evaluation: Evaluation,
    classifier: Classifier,
    images: Images,
    labels: Labels,
    *,
    handed_over: bool,
    rows: slice = ALL,
    progress: Progress,
) -> Preflight:
    """The groundwork of an evaluation, on some `rows` of its images. Raises ModelError for a model that raises or
    returns no logits.

    How the model must be asked is decided on the first chunk of the evaluation, whatever the rows.
    """
    alone, passes, checks = _mode(evaluation, classifier, images, labels, progress)
    first = images[: evaluation.chunk], labels[: evaluation.chunk]
    images, labels = images[rows], labels[rows]
    judge = Judge(classifier, alone=alone, passes=passes, seed=evaluation.attack.seed)
    started = time.perf_counter()
    opinion = judge.opinion(images, labels, of=images)
    seconds = time.perf_counter() - started
    clean = opinion.letters(wrong="m", failed="u")
    opaque = False
    if handed_over:
        standing = judge.clean(*first) if rows.start else clean[: evaluation.chunk]
        fidelity = fidelity_check(judge, first[0][torch.from_numpy(standing == "r")])
        opaque = fidelity.status != "pass"
        checks.append(fidelity)
    useless, slowest = _useless(evaluation, classifier, images, labels, clean)
    return Preflight(
        alone=alone,
        passes=passes,
        seed=evaluation.attack.seed,
        opinion=opinion,
        clean=clean,
        checks=tuple(checks),
        useless=useless,
        opaque=opaque,
        forward_images=judge.forward_images,
        slowest=slowest * passes,
        seconds=seconds,
    )


def _mode(
    evaluation: Evaluation, classifier: Classifier, images: Images, labels: Labels, progress: Progress
) -> tuple[bool, int, list[Check]]:
    """Checks 2 and 15 on the first chunk, and how they ask for points to be judged: alone, and in how many passes."""
    first = slice(0, evaluation.chunk)
    threat = evaluation.threat_model
    coupled = classifier.solver is not None and classifier.solver.couples_batch
    steady = determinism(classifier, images[first], alone=coupled)
    if steady.status == "flag":
        progress.say(
            f"{evaluation.model.name} is randomised (logits differ by {steady.figure:.1%} between passes): "
            f"every letter is taken over {RANDOMISED_PASSES} passes, every gradient averaged over as many"
        )
        if not steady.evidence["seeded"]:
            progress.say(f"{evaluation.model.name} draws from a generator of its own: letters differ between runs")
        independence = mean_batch_independence(classifier, images[first])
        return coupled or independence.status == "flag", RANDOMISED_PASSES, [steady, independence]
    middle = threat.middle_epsilon
    independence = batch_independence(classifier, images[first], labels[first], norm=threat.norm, epsilon=middle)
    return coupled or independence.status == "flag", 1, [steady, independence]


def fidelity_check(judge: Judge, images: Images, *, adjoint: bool = False) -> Check:
    """Check 17 on clean-correct images; not made where the model draws random numbers."""
    if judge.passes > 1:
        why = "the model draws random numbers: its gradient is another one at every pass"
        return skipped(17, "gradient fidelity", speaks_of="model", why=why)
    return gradient_fidelity(judge.classifier, images, adjoint=adjoint)


def _useless(
    evaluation: Evaluation, classifier: Classifier, images: Images, labels: Labels, clean: np.ndarray
) -> tuple[int, float]:
    """Check 1's count over all clean-correct images, and the seconds of the slowest chunk."""
    k, slowest = 0, 0.0
    for rows in chunks(evaluation, len(images)):
        standing = torch.from_numpy(rows[clean[rows] == "r"])
        if len(standing):
            started = time.perf_counter()
            with seeded(evaluation.attack.seed):
                k += useless_gradients(classifier, images[standing], labels[standing])
            slowest = max(slowest, time.perf_counter() - started)
    return k, slowest
