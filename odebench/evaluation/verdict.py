"""The verdict on all candidates, whoever made them: in fp32, on the declared solver, each image for itself.

A randomised model is asked in repeated passes, whose majority decides. Letters are those of odebench.result.outcome.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odebench.attack.early_stopping import strictly_correct
from odebench.model.classifier import Answer, Classifier
from odebench.numerics.precision import full_fp32
from odebench.numerics.projection import ROUNDING, distance, project
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels
from odebench.protocol.spec import VERDICT_BATCH as VERDICT_BATCH
from odebench.result.outcome import FAILED, FOOLED, ROBUST, UNSOLVED, WRONG

NEAR_TIE = 1e-3
"""A gap between the two largest logits below this share of the largest |logit| is judged again alone."""
RANDOMISED_PASSES = 20
"""How many passes a randomised model takes for one point; an attack averages the gradients of as many."""


@dataclass(frozen=True)
class Verdict:
    """One letter per image, NFE per image (None without a field), the candidates as judged, and their distances.

    `invalid` marks candidates that were not finite, or that an attack with a fixed budget placed outside its ball.
    """

    letters: np.ndarray
    nfe: Int[Tensor, " batch"] | None
    judged: Images
    distances: Float[Tensor, " batch"]
    invalid: Bool[Tensor, " batch"]

    def only(self, mask: Bool[Tensor, " batch"]) -> Verdict:
        """The verdict on some of the images."""
        nfe = None if self.nfe is None else self.nfe[mask]
        return Verdict(self.letters[mask.numpy()], nfe, self.judged[mask], self.distances[mask], self.invalid[mask])


@dataclass(frozen=True)
class Opinion:
    """What a judge finds about points with labels: whether each is classified correctly, or the solver failed on it,
    and the model's answer (that of the first pass for a randomised model)."""

    correct: Bool[Tensor, " batch"]
    failed: Bool[Tensor, " batch"]
    answer: Answer

    def letters(self, *, wrong: str, failed: str) -> np.ndarray:
        """r for each point that is classified correctly, else the letter `failed` or `wrong`."""
        return np.where(self.correct, ROBUST, np.where(self.failed, failed, wrong))


class Judge:
    """Judges points for one classifier. `alone`: every image in a batch of its own.

    More than one of `passes` is for a randomised model: each point goes through it alone, that many times, with
    generators seeded by `seed`, the clean image that the point belongs to, and the pass; the majority decides.
    """

    def __init__(self, classifier: Classifier, *, alone: bool = False, passes: int = 1, seed: int = 0) -> None:
        self.classifier = classifier
        self.alone = alone
        self.passes = passes
        self.seed = seed
        self.forward_images = 0

    def clean(self, images: Images, labels: Labels) -> np.ndarray:
        """The letters of clean images: m (wrong or tied), u (failed) or r (correct so far)."""
        return self.opinion(images, labels, of=images).letters(wrong=WRONG, failed=UNSOLVED)

    def candidates(
        self,
        images: Images,
        labels: Labels,
        candidates: Images,
        *,
        norm: str,
        epsilon: float,
        fixed_budget: bool = True,
    ) -> Verdict:
        """The letters f, x or r of candidates for images that are correct when clean, projected onto ball and [0, 1].

        A candidate that is not finite is replaced by its clean image: it is never evidence of robustness. It counts as
        invalid, and so does one of an attack with a `fixed_budget` that the projection moves by more than ROUNDING.
        """
        finite = candidates.flatten(1).isfinite().all(1)
        usable = torch.where(finite[:, None, None, None], candidates, images)
        judged = project(images, usable, norm=norm, epsilon=epsilon)
        moved = distance(usable, judged, norm="linf") > ROUNDING
        invalid = ~finite | (moved if fixed_budget else torch.zeros_like(finite))
        opinion = self.opinion(judged, labels, of=images)
        letters = opinion.letters(wrong=FOOLED, failed=FAILED)
        return Verdict(letters, opinion.answer.nfe, judged, distance(images, judged, norm=norm), invalid)

    def opinion(self, points: Images, labels: Labels, *, of: Images) -> Opinion:
        """Whether points are classified as their labels; each belongs to one of the clean images `of`."""
        labels = labels.cpu()
        if self.passes == 1:
            answer = self.answer(points)
            return Opinion(strictly_correct(answer.logits, labels) & ~answer.failed, answer.failed, answer)
        votes = [self._vote(*each) for each in zip(points, labels, of, strict=True)]
        correct, failed = (torch.tensor([vote[index] for vote in votes], dtype=torch.bool) for index in (0, 1))
        return Opinion(correct, failed, _concatenate([vote[2] for vote in votes]))

    @torch.no_grad()
    def answer(self, points: Images) -> Answer:
        """Logits, failures and NFE on the CPU, asked in batches of VERDICT_BATCH; near ties are asked again alone."""
        size = 1 if self.alone else VERDICT_BATCH
        answer = _concatenate([self._ask(part, size) for part in torch.split(points, size)])
        logits, failed, nfe = answer.logits, answer.failed, answer.nfe
        if not self.alone:
            for row in _near_ties(logits, failed).nonzero().flatten().tolist():
                one = self._ask(points[row : row + 1], 1)
                logits[row], failed[row] = one.logits[0], one.failed[0]
                if nfe is not None and one.nfe is not None:
                    nfe[row] = one.nfe[0]
        return Answer(logits, failed, nfe)

    @torch.no_grad()
    def _vote(self, point: Tensor, label: Tensor, image: Tensor) -> tuple[bool, bool, Answer]:
        """Whether most passes are correct; if not, whether most others failed; and the answer of the first pass.

        Stops as soon as the remaining passes cannot change the decision.
        """
        identity = hashlib.sha256(image.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()
        correct = failures = mistakes = 0
        first = None
        for index in range(self.passes):
            with seeded(_pass_seed(self.seed, identity, index)):
                answer = self._ask(point[None], 1)
            first = first or answer
            failed = bool(answer.failed[0])
            right = not failed and bool(strictly_correct(answer.logits, label[None])[0])
            correct, failures, mistakes = correct + right, failures + failed, mistakes + (not failed and not right)
            left = self.passes - index - 1
            if 2 * correct > self.passes or (2 * (correct + left) <= self.passes and abs(failures - mistakes) > left):
                break
        return 2 * correct > self.passes, failures > mistakes, cast(Answer, first)

    def _ask(self, points: Images, size: int) -> Answer:
        """The answer to a batch of exactly `size` rows, filled up with copies of the last point."""
        missing = size - len(points)
        # A copy, since a model may change its input in place.
        batch = torch.cat([points, points[-1:].expand(missing, *points.shape[1:])]) if missing else points.clone()
        self.forward_images += size
        with full_fp32():
            answer = self.classifier.answer(batch.to(self.classifier.device, torch.float32))
        rows = slice(0, len(points))
        nfe = None if answer.nfe is None else answer.nfe[rows].cpu()
        return Answer(answer.logits[rows].float().cpu(), answer.failed[rows].cpu(), nfe)


def _concatenate(parts: Sequence[Answer]) -> Answer:
    counts = [part.nfe for part in parts if part.nfe is not None]
    return Answer(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.failed for part in parts]),
        torch.cat(counts) if counts else None,
    )


def _pass_seed(seed: int, identity: str, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{identity}/{index}".encode()).digest()[:4], "big")


def _near_ties(logits: Tensor, failed: Tensor) -> Tensor:
    top = logits.topk(2, dim=1).values
    return (top[:, 0] - top[:, 1] < NEAR_TIE * logits.abs().amax(1)) & ~failed
