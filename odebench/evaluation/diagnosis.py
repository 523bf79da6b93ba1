"""A diagnosis under way: probes that attack the same images afresh, and the checks that compare what they fell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.definition import DiagnosisDefinition, Stage
from odebench.attack.probes import Probes, probes
from odebench.attack.trace import Trace
from odebench.evaluation.checks.comparison import (
    black_box,
    convergence,
    incomplete_optimisation,
    monotone_budget,
    random_noise,
    silent_success,
    single_step,
    transferred,
    unbounded,
)
from odebench.evaluation.checks.model import solver_gap
from odebench.evaluation.checks.settings import reach
from odebench.evaluation.outcomes import Outcomes
from odebench.evaluation.preflight import fidelity_check
from odebench.evaluation.staged_attack import StagedAttack
from odebench.evaluation.verdict import Judge
from odebench.numerics.projection import grey_radius
from odebench.progress import Step
from odebench.protocol.spec import Evaluation
from odebench.result.schema import Check


class Diagnosis:
    """The probes of a diagnosis against one model.

    Every probe attacks all clean-correct images of every chunk, whatever others have felled, so that two can be
    compared image by image; all falls together are the letters of the result.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        definition: DiagnosisDefinition,
        siege: StagedAttack,
        judge: Judge,
        images: Float[Tensor, "n channel height width"],
        labels: Int[Tensor, " n"],
        clean: np.ndarray,
        chunks: Sequence[np.ndarray],
        step: Step,
        *,
        doubled: bool,
    ) -> None:
        self.evaluation, self.definition, self.siege, self.judge = evaluation, definition, siege, judge
        self.images, self.labels, self.clean, self.chunks, self.step = images, labels, clean, chunks, step
        self.doubled, self.threat = doubled, evaluation.threat_model
        self.middle = self.threat.middle_epsilon
        self.correct = int((clean == "r").sum())
        self.found = {epsilon: Outcomes.of(clean) for epsilon in self.threat.epsilons}

    def conduct(self) -> tuple[list[Outcomes], list[Check]]:
        """All probes: a ledger for each epsilon of the evaluation, and the checks that the definition names."""
        parts = probes(
            self.evaluation.attack.parameters, norm=self.threat.norm, n_classes=self.judge.classifier.n_classes
        )
        reaches = reach(self.definition, self.evaluation.attack.parameters).status != "flag"
        trace = Trace()
        iterated = self._attack(parts.iterated, self.middle, trace).letters
        checks = [
            single_step(iterated, self._attack(parts.single_step, self.middle).letters, reaches=reaches),
            silent_success(trace, self.correct),
            random_noise(iterated, self._attack(parts.random, self.middle).letters, reaches=reaches),
            self._solver_gap(trace),
            self._gradient_fidelity(),
        ]
        by_epsilon = {
            epsilon: iterated if epsilon == self.middle else self._attack(parts.iterated, epsilon).letters
            for epsilon in self.threat.epsilons
        }
        if self.definition.needs_sources:
            checks += self._slower(parts, trace, by_epsilon)
        for smaller, larger in pairwise(self.threat.epsilons):
            # Probes differ in strength from one radius to the next; a fall at a smaller one holds all the same.
            self.found[larger].join(self.found[smaller].without_measures())
        return list(self.found.values()), [check for check in checks if check.id in self.definition.checks]

    def _slower(self, parts: Probes, trace: Trace, by_epsilon: Mapping[float, np.ndarray]) -> list[Check]:
        """The checks that the quick set leaves out."""
        iterated = by_epsilon[self.middle]
        longer = self._attack(parts.longer, self.middle).letters
        restarted = self._attack(parts.restarted, self.middle).letters
        worst = self._attack(parts.worst_case, self.middle)
        return [
            convergence(iterated, longer, restarted),
            incomplete_optimisation(trace),
            self._unbounded(parts.iterated),
            monotone_budget(by_epsilon),
            black_box(self._felled(worst, [s for s in parts.worst_case if _by_queries(s)]), self.correct),
            transferred(
                self._felled(worst, [s for s in parts.worst_case if s.definition.needs_sources]),
                self.correct,
                self.evaluation.attack.sources,
            ),
        ]

    def _attack(
        self, stages: Stage | Sequence[Stage], epsilon: float, trace: Trace | None = None, *, counts: bool = True
    ) -> Outcomes:
        """What one probe, or stages in turn, fell of all images. It `counts` for the letters of the result."""
        stages = [stages] if isinstance(stages, Stage) else list(stages)
        ledger = Outcomes.of(self.clean)
        first = self.evaluation.dataset.offset // self.evaluation.chunk
        for number, rows in enumerate(self.chunks):
            standing = rows[ledger.letters[rows] == "r"]
            self.siege.attack_chunk(
                number + first, standing, epsilon, ledger, self.step, stages=self._possible(stages), trace=trace
            )
        if counts:
            self.found[epsilon].join(ledger)
        return ledger

    def _possible(self, stages: Sequence[Stage]) -> list[Stage]:
        """The stages that there are sources for, with twice the budget where the gradient could not be confirmed.

        Not with twice the starts: probes that are compared must take the same."""
        possible = [stage for stage in stages if self.siege.sources or not stage.definition.needs_sources]
        return [stage.doubled(restarts=False) for stage in possible] if self.doubled else possible

    def _felled(self, ledger: Outcomes, stages: Sequence[Stage]) -> int:
        letters = [self.siege.letter(stage, self.middle) for stage in self._possible(stages)]
        return int(np.isin(ledger.felled, letters).sum())

    def _solver_gap(self, trace: Trace) -> Check:
        rows = np.asarray(sorted(trace.ends), dtype=int)
        ends = torch.stack([trace.ends[int(row)] for row in rows]) if len(rows) else self.images[:0]
        where = torch.from_numpy(rows)
        return solver_gap(
            self.judge, self.images[where], self.labels[where], ends, norm=self.threat.norm, epsilon=self.middle
        )

    def _gradient_fidelity(self) -> Check:
        rows = self.chunks[0][self.clean[self.chunks[0]] == "r"]
        return fidelity_check(self.judge, self.images[torch.from_numpy(rows)], adjoint=True)

    def _unbounded(self, stage: Stage) -> Check:
        """Check 9, within the ball in which plain grey lies for every image."""
        radius = grey_radius(self.threat.norm, tuple(self.images.shape[1:]))
        attacked = self._attack(stage, radius, counts=False).letters
        grey = self.clean.copy()
        rows = (self.clean == "r").nonzero()[0]
        where = torch.from_numpy(rows)
        points = torch.full_like(self.images[where], 0.5)
        if len(rows):
            budget: dict[str, Any] = {"norm": self.threat.norm, "epsilon": radius}
            grey[rows] = self.judge.candidates(self.images[where], self.labels[where], points, **budget).letters
        return unbounded(attacked, grey)


def _by_queries(stage: Stage) -> bool:
    """Whether a stage asks for logits alone, of the model itself."""
    return not (stage.definition.uses_gradients or stage.definition.needs_sources)
