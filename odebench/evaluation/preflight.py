"""What is settled before a model is attacked: how it must be asked, its clean outcomes, the first checks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch

from odebench.attack.received import Received
from odebench.dataset import Split
from odebench.evaluation.checks.gradient import gradient_fidelity
from odebench.evaluation.checks.model import (
    batch_independence,
    determinism,
    mean_batch_independence,
    useless_gradients,
)
from odebench.evaluation.checks.replay import with_replay
from odebench.evaluation.checks.rule import skipped
from odebench.evaluation.verdict import RANDOMISED_PASSES, Judge, Opinion
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images
from odebench.progress import Progress
from odebench.protocol.spec import Evaluation, Norm
from odebench.result.outcome import ROBUST, UNSOLVED, WRONG, CheckId
from odebench.result.schema import Check

ALL = slice(None)
TIMED_ALONE = 4
"""How many images the time of gradients one by one is taken from."""


@dataclass(frozen=True)
class Preflight:
    """The clean outcomes and the first checks of one model on some images; several attacks may share them.

    `alone` and `passes` are how the judge asks, `clean` holds one letter per image and `first_clean` those of the
    evaluation's first chunk, `checks` are those made on this chunk. `useless` counts the images of check 1.
    `gradient_unconfirmed`: a module was handed over and check 17 did not pass. `slowest` is the longest that the
    gradients of one chunk took (one by one if `alone`), `seconds` what the clean predictions took. `state` holds check
    19 once it has been made.
    """

    alone: bool
    passes: int
    seed: int
    opinion: Opinion
    clean: np.ndarray
    first_clean: np.ndarray
    checks: tuple[Check, ...]
    useless: int
    gradient_unconfirmed: bool
    forward_images: int
    slowest: float
    seconds: float
    state: list[Check] = field(default_factory=list)

    @property
    def correct(self) -> int:
        """How many clean images are classified correctly."""
        return int((self.clean == ROBUST).sum())

    def judge(self, classifier: Classifier) -> Judge:
        """A judge that asks as the checks demand, and counts what the clean images took."""
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
    images: Split,
    *,
    handed_over: bool,
    rows: slice = ALL,
    progress: Progress,
) -> Preflight:
    """The preflight of an evaluation on `images`, of which those of `rows` are attacked.

    How the model must be asked is decided on the first chunk of all images, whatever the rows. Raises ModelError for a
    model that raises or returns no logits.
    """
    first, part = images.part(slice(0, evaluation.chunk)), images.part(rows)
    with progress.track("clean images and checks 2, 15", total=2) as step:
        alone, passes, checks = _how_to_ask(evaluation, classifier, first, progress)
        step.advance()
        judge = Judge(classifier, alone=alone, passes=passes, seed=evaluation.attack.seed)
        started = time.perf_counter()
        opinion = judge.opinion(part.images, part.labels, of=part.images)
        seconds = time.perf_counter() - started
        step.advance()
    clean = opinion.letters(wrong=WRONG, failed=UNSOLVED)
    gradient_unconfirmed = False
    first_clean = clean[: evaluation.chunk]
    if rows.start:
        apart = Judge(classifier, alone=alone, passes=passes, seed=evaluation.attack.seed)
        first_clean = apart.clean(first.images, first.labels)
    if handed_over:
        threat = evaluation.threat_model
        fidelity = fidelity_check(
            judge,
            first.images[torch.from_numpy(first_clean == ROBUST)],
            norm=threat.norm,
            epsilon=threat.middle_epsilon,
        )
        gradient_unconfirmed = fidelity.status != "pass"
        checks.append(fidelity)
    useless, slowest = _count_useless(evaluation, classifier, part, clean)
    if alone:
        slowest = max(slowest, _seconds_alone(evaluation, classifier, part))
    return Preflight(
        alone=alone,
        passes=passes,
        seed=evaluation.attack.seed,
        opinion=opinion,
        clean=clean,
        first_clean=first_clean,
        checks=tuple(checks),
        useless=useless,
        gradient_unconfirmed=gradient_unconfirmed,
        forward_images=judge.forward_images,
        slowest=slowest * passes,
        seconds=seconds,
    )


def _how_to_ask(
    evaluation: Evaluation, classifier: Classifier, first: Split, progress: Progress
) -> tuple[bool, int, list[Check]]:
    """Whether each image is judged alone, and in how many passes, with the checks 2 and 15 that decide it."""
    coupled = classifier.solver is not None and classifier.solver.couples_batch
    steady = determinism(classifier, first.images, alone=coupled)
    if steady.status == "flag":
        progress.say(
            f"{evaluation.model.name} is randomised (logits differ by {steady.figure:.1%} between passes): "
            f"every letter is taken over {RANDOMISED_PASSES} passes, every gradient averaged over as many"
        )
        if not steady.evidence["seeded"]:
            progress.say(f"{evaluation.model.name} draws from its own random generator: letters differ between runs")
        passes = RANDOMISED_PASSES
        independence = mean_batch_independence(classifier, first.images)
    else:
        threat = evaluation.threat_model
        passes = 1
        independence = batch_independence(
            classifier, first.images, first.labels, norm=threat.norm, epsilon=threat.middle_epsilon
        )
    if alone := coupled or independence.status == "flag":
        progress.say(
            f"{evaluation.model.name}: answers depend on the batch, so every image is attacked and judged by itself, "
            "which takes longer"
        )
    return alone, passes, [steady, independence]


def fidelity_check(
    judge: Judge,
    images: Images,
    *,
    norm: Norm,
    epsilon: float,
    adjoint: bool = False,
    received: Received | None = None,
) -> Check:
    """Check 17 on images that are classified correctly, and on gradients that an attack has `received`; skipped for a
    randomised model."""
    if judge.passes > 1:
        why = "the model draws random numbers: its gradient differs at every pass"
        return skipped(CheckId.GRADIENT_FIDELITY, speaks_of="model", why=why)
    classifier, alone = judge.classifier, judge.alone
    own = gradient_fidelity(classifier, images, norm=norm, epsilon=epsilon, alone=alone, adjoint=adjoint)
    return own if received is None else with_replay(own, classifier, received.sample(alone=alone), alone=alone)


def _count_useless(evaluation: Evaluation, classifier: Classifier, part: Split, clean: np.ndarray) -> tuple[int, float]:
    """Check 1's count over all images that are classified correctly, and the seconds of the slowest chunk."""
    count, slowest = 0, 0.0
    for rows in chunks(evaluation, len(part)):
        correct = torch.from_numpy(rows[clean[rows] == ROBUST])
        if len(correct):
            started = time.perf_counter()
            with seeded(evaluation.attack.seed):
                count += useless_gradients(classifier, part.images[correct], part.labels[correct])
            slowest = max(slowest, time.perf_counter() - started)
    return count, slowest


def _seconds_alone(evaluation: Evaluation, classifier: Classifier, part: Split) -> float:
    """What the gradients of a chunk take one by one, from those of its first images."""
    asked = min(TIMED_ALONE, len(part))
    started = time.perf_counter()
    with seeded(evaluation.attack.seed):
        for row in range(asked):
            useless_gradients(classifier, part.images[row : row + 1], part.labels[row : row + 1])
    return (time.perf_counter() - started) / asked * min(evaluation.chunk, len(part))
