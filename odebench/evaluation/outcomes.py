"""What is known of every image at one epsilon while an evaluation is under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from odebench.evaluation.verdict import Verdict
from odebench.result.outcome import SUCCESSFUL
from odebench.result.schema import UNFELLED, EpsilonResult, FelledBy, Figures, letter_figures
from odebench.result.summary import quantiles


@dataclass
class Outcomes:
    """A letter an image, what felled it, and what was measured on the candidates that were judged.

    `judged`, if kept, holds the last candidate judged for an image, by its position: what felled it, if anything did.
    """

    letters: np.ndarray
    felled: np.ndarray
    distances: list[float] = field(default_factory=list)
    nfe: list[int] = field(default_factory=list)
    invalid: int = 0
    judged: dict[int, Tensor] | None = None

    @classmethod
    def of(cls, clean: np.ndarray, *, keep: bool = False) -> Outcomes:
        """A ledger in which nobody has fallen: the letters m, u and r of the clean images. `keep` the candidates?"""
        return cls(clean.copy(), np.full(len(clean), UNFELLED), judged={} if keep else None)

    @property
    def standing(self) -> int:
        """How many images are robust so far."""
        return int((self.letters == "r").sum())

    def enter(self, rows: np.ndarray, verdict: Verdict, stage_letter: str) -> None:
        """Records the judged candidates of `rows`, positions in the slice: f outranks x, and x outranks r."""
        for letter in SUCCESSFUL[::-1]:
            here = rows[verdict.letters == letter]
            here = here[self.letters[here] != "f"]
            self.letters[here], self.felled[here] = letter, stage_letter
        if self.judged is not None:
            self.judged.update(zip(rows.tolist(), verdict.judged.clone(), strict=True))
        self.distances += verdict.distances[torch.from_numpy(verdict.letters == "f")].tolist()
        self.nfe += [] if verdict.nfe is None else verdict.nfe.tolist()
        self.invalid += int(verdict.invalid.sum())

    def join(self, other: Outcomes) -> None:
        """Takes over what another attack found on the same images at the same epsilon."""
        for letter in SUCCESSFUL[::-1]:
            here = (other.letters == letter) & (self.letters != "f")
            self.letters[here], self.felled[here] = letter, other.felled[here]
        if self.judged is not None:
            self.judged.update(other.judged or {})
        self.distances += other.distances
        self.nfe += other.nfe
        self.invalid += other.invalid

    @classmethod
    def side_by_side(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """The ledgers of images that follow one another, at one epsilon, as one."""
        return cls(
            np.concatenate([part.letters for part in parts]),
            np.concatenate([part.felled for part in parts]),
            distances=[distance for part in parts for distance in part.distances],
            nfe=[count for part in parts for count in part.nfe],
            invalid=sum(part.invalid for part in parts),
        )

    def without_measures(self) -> Outcomes:
        """The letters alone, and what felled them."""
        return Outcomes(self.letters, self.felled)

    def carry(self, smaller: Outcomes) -> None:
        """Takes over the falls at a smaller epsilon: they hold at this one too."""
        self.letters, self.felled = smaller.letters.copy(), smaller.felled.copy()
        self.judged = None if smaller.judged is None else dict(smaller.judged)

    def epsilon_result(self, epsilon: float, legend: Mapping[str, str]) -> EpsilonResult:
        """The letters and figures as a result stores them."""
        outcomes = "".join(self.letters)
        return EpsilonResult(
            epsilon=epsilon,
            outcomes=outcomes,
            felled_by=FelledBy(letters="".join(self.felled), legend=dict(legend)),
            figures=Figures(**letter_figures(outcomes), norm_quantiles=quantiles(self.distances), invalid=self.invalid),
        )


def ever_failed(ledgers: Sequence[Outcomes]) -> str:
    """A letter an image: that of the largest epsilon, but x where the solver failed at any."""
    failed = np.any([ledger.letters == "x" for ledger in ledgers], axis=0)
    return "".join(np.where(failed, "x", ledgers[-1].letters))
