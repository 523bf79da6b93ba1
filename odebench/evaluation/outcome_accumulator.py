"""The outcomes of all images at one epsilon while an evaluation is under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from odebench.evaluation.verdict import Verdict
from odebench.result.outcome import FAILED, FOOLED, ROBUST
from odebench.result.schema import UNFELLED, EpsilonResult, FelledBy, Figures, letter_figures
from odebench.result.summary import quantiles


@dataclass
class Outcomes:
    """One letter per image, the code of the stage that succeeded on it, and measurements of the judged candidates.

    `distances` are those of fooling candidates, `nfe` those of all. `judged`, if kept, holds the last candidate judged
    for each attacked image, by its position: the one that succeeded, if any did.
    """

    letters: np.ndarray
    felled_by: np.ndarray
    distances: list[float] = field(default_factory=list)
    nfe: list[int] = field(default_factory=list)
    invalid: int = 0
    judged: dict[int, Tensor] | None = None

    @classmethod
    def of(cls, clean: np.ndarray, *, keep_candidates: bool = False) -> Outcomes:
        """Outcomes before any attack: the letters m, u and r of the clean images."""
        return cls(clean.copy(), np.full(len(clean), UNFELLED), judged={} if keep_candidates else None)

    @property
    def robust(self) -> int:
        """How many images are robust so far."""
        return int((self.letters == ROBUST).sum())

    def first(self, n: int) -> Outcomes:
        """A copy of the letters and codes of the first n images."""
        return Outcomes(self.letters[:n].copy(), self.felled_by[:n].copy())

    def record(self, rows: np.ndarray, verdict: Verdict, stage_code: str) -> None:
        """Records the judged candidates of `rows`, positions in the slice: f outranks x, and x outranks r."""
        for letter in (FAILED, FOOLED):
            here = rows[verdict.letters == letter]
            here = here[self.letters[here] != FOOLED]
            self.letters[here], self.felled_by[here] = letter, stage_code
        if self.judged is not None:
            self.judged.update(zip(rows.tolist(), verdict.judged.clone(), strict=True))
        self.distances += verdict.distances[torch.from_numpy(verdict.letters == FOOLED)].tolist()
        self.nfe += [] if verdict.nfe is None else verdict.nfe.tolist()
        self.invalid += int(verdict.invalid.sum())

    def join(self, other: Outcomes) -> None:
        """Adds what another attack found on the same images at the same epsilon."""
        self.join_letters(other)
        if self.judged is not None:
            self.judged.update(other.judged or {})
        self.distances += other.distances
        self.nfe += other.nfe
        self.invalid += other.invalid

    def join_letters(self, other: Outcomes) -> None:
        """Adds the letters alone, such as those found at a smaller epsilon, which hold at this one too."""
        for letter in (FAILED, FOOLED):
            here = (other.letters == letter) & (self.letters != FOOLED)
            self.letters[here], self.felled_by[here] = letter, other.felled_by[here]
            if self.judged is not None and other.judged is not None:
                self.judged.update(
                    {row: other.judged[row] for row in np.flatnonzero(here).tolist() if row in other.judged}
                )

    def carry_over(self, smaller: Outcomes) -> None:
        """Starts from the outcomes at a smaller epsilon: an image fooled there is fooled at this one too."""
        self.letters, self.felled_by = smaller.letters.copy(), smaller.felled_by.copy()
        self.judged = None if smaller.judged is None else dict(smaller.judged)

    @classmethod
    def concatenate(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """The outcomes of slices that follow one another, at one epsilon, as one."""
        return cls(
            np.concatenate([part.letters for part in parts]),
            np.concatenate([part.felled_by for part in parts]),
            distances=[distance for part in parts for distance in part.distances],
            nfe=[count for part in parts for count in part.nfe],
            invalid=sum(part.invalid for part in parts),
        )

    def epsilon_result(self, epsilon: float, legend: Mapping[str, str]) -> EpsilonResult:
        """The letters and figures as a result stores them."""
        outcomes = "".join(self.letters)
        return EpsilonResult(
            epsilon=epsilon,
            outcomes=outcomes,
            felled_by=FelledBy(letters="".join(self.felled_by), legend=dict(legend)),
            figures=Figures(**letter_figures(outcomes), norm_quantiles=quantiles(self.distances), invalid=self.invalid),
        )


def ever_failed(by_epsilon: Sequence[Outcomes]) -> str:
    """One letter per image: that of the largest epsilon, but x if the solver failed at any epsilon."""
    failed = np.any([outcomes.letters == FAILED for outcomes in by_epsilon], axis=0)
    return "".join(np.where(failed, FAILED, by_epsilon[-1].letters))
