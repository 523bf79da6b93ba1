"""The verdict: one door for all candidates, in fp32 on the declared solver, no image touched by another.

Letters: m wrong or tied clean, u unsolved clean, f fooled, x failure under attack, r robust.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odebench.attack.pursuit import strictly_correct
from odebench.ball import ROUNDING, distance, project
from odebench.model.classifier import Answer, Classifier

VERDICT_BATCH = 100
NEAR_TIE = 1e-3
"""A gap between the two largest logits below this share of the largest |logit| is judged again alone."""

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]


@dataclass(frozen=True)
class Verdict:
    """A letter an image, NFE an image (None without a field), the candidates as judged and their distances.

    `invalid` marks candidates that were not finite, or (fixed budget) that lay outside their ball.
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


class Judge:
    """Judges points for one classifier. `alone`: every image in a batch of its own."""

    def __init__(self, classifier: Classifier, *, alone: bool = False) -> None:
        self.classifier = classifier
        self.alone = alone
        self.forward_images = 0

    def clean(self, images: Images, labels: Labels) -> np.ndarray:
        """Letters m (wrong or tied), u (failed) or r (correct so far) of clean images."""
        return self.clean_letters(self.answer(images), labels)

    def clean_letters(self, answer: Answer, labels: Labels) -> np.ndarray:
        """The same letters, from an answer of this judge."""
        return _letters(answer, labels, wrong="m", failed="u")

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
        """Letters f, x or r of candidates for clean-correct images, after projection onto ball and [0, 1].

        A candidate that is not finite is judged as its clean image: it is never evidence of robustness. One of a
        fixed-budget attack that the projection moves by more than ROUNDING is counted invalid too.
        """
        finite = candidates.flatten(1).isfinite().all(1)
        usable = torch.where(finite[:, None, None, None], candidates, images)
        judged = project(images, usable, norm=norm, epsilon=epsilon)
        moved = distance(usable, judged, norm="linf") > ROUNDING
        invalid = ~finite | (moved if fixed_budget else torch.zeros_like(finite))
        answer = self.answer(judged)
        letters = _letters(answer, labels, wrong="f", failed="x")
        return Verdict(letters, answer.nfe, judged, distance(images, judged, norm=norm), invalid)

    @torch.no_grad()
    def answer(self, points: Images) -> Answer:
        """Logits, failures and NFE, on the CPU, in the canonical batch shape; near ties as they are alone."""
        size = 1 if self.alone else VERDICT_BATCH
        parts = [self._ask(part, size) for part in torch.split(points, size)]
        logits, failed = (
            torch.cat([part.logits for part in parts]),
            torch.cat([part.failed for part in parts]),
        )
        counts = [part.nfe for part in parts if part.nfe is not None]
        nfe = torch.cat(counts) if counts else None
        if not self.alone:
            for row in _near_ties(logits, failed).nonzero().flatten().tolist():
                one = self._ask(points[row : row + 1], 1)
                logits[row], failed[row] = one.logits[0], one.failed[0]
                if nfe is not None and one.nfe is not None:
                    nfe[row] = one.nfe[0]
        return Answer(logits, failed, nfe)

    def _ask(self, points: Images, size: int) -> Answer:
        """One batch of exactly `size` rows, filled up with copies of the last one."""
        missing = size - len(points)
        # A copy: a model that changes its input in place must not change the images.
        batch = torch.cat([points, points[-1:].expand(missing, *points.shape[1:])]) if missing else points.clone()
        self.forward_images += size
        answer = self.classifier.answer(batch.to(self.classifier.device, torch.float32))
        rows = slice(0, len(points))
        nfe = None if answer.nfe is None else answer.nfe[rows].cpu()
        return Answer(answer.logits[rows].float().cpu(), answer.failed[rows].cpu(), nfe)


def _letters(answer: Answer, labels: Labels, *, wrong: str, failed: str) -> np.ndarray:
    correct = strictly_correct(answer.logits, labels.cpu())
    return np.where(answer.failed, failed, np.where(correct, "r", wrong))


def _near_ties(logits: Tensor, failed: Tensor) -> Tensor:
    top = logits.topk(2, dim=1).values
    return (top[:, 0] - top[:, 1] < NEAR_TIE * logits.abs().amax(1)) & ~failed
