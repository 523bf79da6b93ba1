"""Whether a model still answers as it did before it was attacked, however it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from odebench.attack.early_stopping import strictly_correct
from odebench.errors import ModelProcessError
from odebench.evaluation.checks.rule import count_check, skipped
from odebench.evaluation.verdict import NEAR_TIE
from odebench.model.classifier import Classifier
from odebench.model.process import ModelProcess
from odebench.model.process_classifier import ProcessClassifier
from odebench.model.question import ProcessAnswer, Question, answer_question
from odebench.numerics.precision import full_fp32
from odebench.numerics.shapes import Images, Labels
from odebench.protocol.spec import VERDICT_BATCH
from odebench.result.outcome import CheckId
from odebench.result.schema import Check

STATE_IMAGES = 32
"""How many images of the first chunk are used, of those classified correctly."""
STATE_IMAGES_ALONE = 16
"""The same for a model that is asked image by image."""
STATE_THRESHOLD = 1e-4
"""By what share of the largest |logit| a logit of an image may differ, as in checks 2 and 15."""
_ASKED_ALONE = 4
"""How many points of a group are asked alone in each gradient mode, beside the batches."""
_SMALL_BATCH = 7

Start = Callable[[], AbstractContextManager[ModelProcess]]
"""Makes a process of the model that has answered nothing; to be entered by the check. May raise ModelProcessError."""


@contextmanager
def state(
    classifier: Classifier,
    start: Start | None,
    images: Images,
    labels: Labels,
    candidates: Mapping[int, Tensor],
    *,
    alone: bool,
    randomised: bool,
) -> Iterator[Callable[[], Check]]:
    """Check 19: the same points, asked of the model that was attacked and of a fresh process; k of n images move.

    The fresh process is asked beside whatever else is done in the context. What this yields asks the model itself, and
    makes the check.

    `images` are clean and classified correctly, `candidates` are the last ones judged, by the row of their image. The
    first 32 images are used (16 `alone`). Both models are asked alike: about the candidates first, so that a model that
    remembers clean images has none to remember, then about the images; in a batch of the verdict, all at once, in
    sevens and a few alone, in another order each time, with gradients and without. `alone` asks each image alone only.
    An image moves if, between any two answers to it or to its candidate, one failed and the other did not, a letter
    changes that is no near tie, or a logit differs by more than 1e-4 of the largest |logit|.

    `start` makes the fresh process, or raises ModelProcessError; None where there is no way to make one. The check is
    then skipped and speaks of the settings; so it does where the process fails. A `randomised` model is skipped, too.
    Raises ModelError where the classifier does.
    """
    images = images[: STATE_IMAGES_ALONE if alone else STATE_IMAGES].cpu()
    n = len(images)
    if randomised or not n:
        why = (
            "the model draws random numbers: no two answers agree" if randomised else "no image is classified correctly"
        )
        yield partial(skipped, CheckId.STATE, speaks_of="model", why=why)
        return
    if start is None:
        yield partial(_without_a_copy, "there is no way to build the model a second time")
        return
    attacked = [row for row in sorted(candidates) if row < n]
    seen = [_Seen(images, labels.cpu(), torch.arange(n))]
    if attacked:
        points = torch.stack([candidates[row].cpu() for row in attacked])
        seen.insert(0, _Seen(points, labels.cpu()[attacked], torch.tensor(attacked)))
    with ExitStack() as stack:
        try:
            pool = stack.enter_context(ThreadPoolExecutor(1))
            process = stack.enter_context(start())  # ends before the thread that waits for its answers
        except ModelProcessError as error:
            yield partial(_without_a_copy, f"no fresh copy of the model answers: {error}")
            return
        fresh = pool.submit(_ask_all, process.ask, seen, alone=alone)

        def finish() -> Check:
            with classifier.frozen(), full_fp32():
                ask: Callable[[Question], ProcessAnswer] = partial(answer_question, classifier)
                if isinstance(classifier, ProcessClassifier):
                    ask = classifier.ask
                answers = _ask_all(ask, seen, alone=alone)
            try:
                answers += fresh.result()
            except ModelProcessError as error:
                return _without_a_copy(f"no fresh copy of the model answers: {error}")
            return _compared(seen, answers, n, attacked=len(attacked))

        yield finish


class _Seen:
    """Points with their labels and the rows of the images that they belong to, and between which bounds all answers to
    them lie."""

    def __init__(self, points: Images, labels: Labels, of: Tensor) -> None:
        self.points, self.labels, self.of = points, labels, of
        n = len(points)
        self.lowest: Tensor | None = None
        self.highest: Tensor | None = None
        self.ever, self.always = torch.zeros(n, 2, dtype=torch.bool), torch.ones(n, 2, dtype=torch.bool)
        self.near_tie = torch.zeros(n, dtype=torch.bool)

    def add(self, rows: Tensor, answer: ProcessAnswer) -> None:
        """Takes in an answer to some points, none of them twice."""
        if self.lowest is None or self.highest is None:
            shape = (len(self.points), answer.logits.shape[1])
            self.lowest, self.highest = torch.full(shape, torch.inf), torch.full(shape, -torch.inf)
        logits, failed = answer.logits[: len(rows)], answer.failed[: len(rows)]
        self.lowest[rows] = torch.minimum(self.lowest[rows], logits)
        self.highest[rows] = torch.maximum(self.highest[rows], logits)
        told = torch.stack([failed, strictly_correct(logits, self.labels[rows]) & ~failed], 1)
        self.ever[rows] |= told
        self.always[rows] &= told
        top = logits.topk(2, dim=1).values
        self.near_tie[rows] |= top[:, 0] - top[:, 1] < NEAR_TIE * logits.abs().amax(1)

    @property
    def letters_moved(self) -> Bool[Tensor, " n"]:
        """Which points some answers fail or get right and others do not; a near tie falls either way by rounding."""
        differs = self.ever & ~self.always
        return differs[:, 0] | (differs[:, 1] & ~self.near_tie)

    @property
    def moved(self) -> Bool[Tensor, " n"]:
        """Which points have answers that do not agree in letters and logits."""
        assert self.lowest is not None
        assert self.highest is not None
        largest = torch.maximum(self.lowest.abs(), self.highest.abs()).amax(1).clamp_min(1e-12)
        return self.letters_moved | ((self.highest - self.lowest).amax(1) > STATE_THRESHOLD * largest)


def _without_a_copy(why: str) -> Check:
    return skipped(CheckId.STATE, speaks_of="settings", why=why)


def _compared(seen: list[_Seen], answers: list[_Answered], n: int, *, attacked: int) -> Check:
    """The check on n images, `attacked` of which have a candidate, from the answers of both models."""
    for points, rows, answer in answers:
        points.add(rows, answer)
    moved, letters = (torch.zeros(n, dtype=torch.bool) for _ in range(2))
    for each in seen:
        moved[each.of] |= each.moved
        letters[each.of] |= each.letters_moved
    return count_check(
        CheckId.STATE,
        speaks_of="model",
        k=int(moved.sum()),
        n=n,
        why="images whose letter or logits, clean or at the candidate, differ between the model after the attack and a "
        "fresh copy, or with order, batch or gradient mode: the model keeps a state, or detects its caller; its answer "
        "must depend on the image alone",
        evidence={"letters": int(letters.sum()), "attacked": attacked},
    )


_Answered = tuple[_Seen, Tensor, ProcessAnswer]
"""Points, the rows of them that were asked about, and the answer."""


def _ask_all(ask: Callable[[Question], ProcessAnswer], seen: list[_Seen], *, alone: bool) -> list[_Answered]:
    """A model's answers about all points, asked in the order of the list, each with the rows that it is about."""
    return [
        (points, rows[: len(points.points)], ask(Question(points.points[rows], gradients=gradients)))
        for points in seen
        for rows, gradients in _ways(len(points.points), alone=alone)
    ]


def _ways(n: int, *, alone: bool) -> Iterator[tuple[Tensor, bool]]:
    """The rows of each question about n points, and whether it is asked with gradients; more than n rows are a batch of
    the verdict, filled up with copies of the last."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(n, generator=generator) for _ in range(5)]
    if not alone:
        yield torch.cat([orders[0], orders[0][-1:].expand(VERDICT_BATCH - n)]), False
        yield orders[1], True
        yield from ((rows, False) for rows in torch.split(orders[2], _SMALL_BATCH))
    for order, gradients in ((orders[3], False), (orders[4], True)):
        yield from ((rows, gradients) for rows in torch.split(order if alone else order[:_ASKED_ALONE], 1))
