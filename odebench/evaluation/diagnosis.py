"""The probes of a diagnosis, which attack the same images afresh, and the checks that compare their outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch

from odebench.attack.definition import DiagnosisDefinition, Stage
from odebench.attack.probes import Probes, probes
from odebench.attack.trace import Trace
from odebench.evaluation.checks import comparison
from odebench.evaluation.checks.reach import reach
from odebench.evaluation.checks.solver import solver_gap
from odebench.evaluation.outcome_accumulator import Outcomes
from odebench.evaluation.preflight import Preflight, fidelity_check
from odebench.evaluation.staged_attack import StagedAttack
from odebench.numerics.projection import grey_radius
from odebench.progress import Step
from odebench.result.outcome import ROBUST
from odebench.result.schema import Check


class Diagnosis:
    """The probes of a diagnosis against one model.

    Each probe attacks all images that are classified correctly, whether another probe has succeeded on them or not, so
    that two probes can be compared image by image. The outcomes of the result are those of all probes together.
    """

    def __init__(self, definition: DiagnosisDefinition, attack: StagedAttack, preflight: Preflight, step: Step) -> None:
        self.definition, self.attack, self.preflight, self.step = definition, attack, preflight, step
        self.evaluation, self.judge, self.clean = attack.evaluation, attack.judge, preflight.clean
        self.images, self.labels = attack.images, attack.labels
        self.threat = self.evaluation.threat_model
        self.middle = self.threat.middle_epsilon
        self.outcomes = {epsilon: Outcomes.of(self.clean) for epsilon in self.threat.epsilons}

    def run(self) -> tuple[list[Outcomes], list[Check]]:
        """Runs all probes; returns the outcomes at each epsilon, and the checks that the definition names."""
        parts = probes(
            self.evaluation.attack.parameters, norm=self.threat.norm, n_classes=self.judge.classifier.n_classes
        )
        reaches = reach(self.definition, self.evaluation.attack.parameters).status != "flag"
        trace = Trace()
        iterated = self._attack(parts.iterated, self.middle, trace).letters
        checks = [
            comparison.single_step(iterated, self._attack(parts.single_step, self.middle).letters, reaches=reaches),
            comparison.silent_success(trace, self.preflight.correct),
            comparison.random_noise(iterated, self._attack(parts.random, self.middle).letters, reaches=reaches),
            self._solver_gap(trace),
            self._gradient_fidelity(),
        ]
        by_epsilon = {
            epsilon: iterated if epsilon == self.middle else self._attack(parts.iterated, epsilon).letters
            for epsilon in self.threat.epsilons
        }
        if self.definition.needs_sources:
            checks += self._slower_checks(parts, trace, by_epsilon)
        for smaller, larger in pairwise(self.threat.epsilons):
            # An image is adversarial at every larger epsilon, whatever the probes found there.
            self.outcomes[larger].join_letters(self.outcomes[smaller])
        return list(self.outcomes.values()), [check for check in checks if check.id in self.definition.checks]

    def _slower_checks(self, parts: Probes, trace: Trace, by_epsilon: Mapping[float, np.ndarray]) -> list[Check]:
        """The checks that the quick diagnosis leaves out."""
        iterated, correct = by_epsilon[self.middle], self.preflight.correct
        longer = self._attack(parts.longer, self.middle).letters
        restarted = self._attack(parts.restarted, self.middle).letters
        worst = self._attack(parts.worst_case, self.middle)
        by_queries = self._count(worst, [stage for stage in parts.worst_case if _by_queries(stage)])
        by_source = self._count(worst, [stage for stage in parts.worst_case if stage.definition.needs_sources])
        return [
            comparison.convergence(iterated, longer, restarted),
            comparison.incomplete_optimisation(trace),
            self._unbounded(parts.iterated),
            comparison.monotone_budget(by_epsilon),
            comparison.black_box(by_queries, correct),
            comparison.transferred(by_source, correct, self.evaluation.attack.sources),
        ]

    def _attack(
        self, stages: Stage | Sequence[Stage], epsilon: float, trace: Trace | None = None, *, counts: bool = True
    ) -> Outcomes:
        """The outcomes of one probe, or of stages in turn, on all images. If it `counts`, the result includes them."""
        stages = [stages] if isinstance(stages, Stage) else list(stages)
        outcomes = Outcomes.of(self.clean)
        self.attack.attack_images(epsilon, outcomes, self.step, stages=self._possible(stages), trace=trace)
        if counts:
            self.outcomes[epsilon].join(outcomes)
        return outcomes

    def _possible(self, stages: Sequence[Stage]) -> list[Stage]:
        """The stages that there are sources for, with twice the budget if the gradient could not be confirmed.

        Not with twice the starts: probes that are compared must take the same."""
        possible = [stage for stage in stages if self.attack.sources or not stage.definition.needs_sources]
        if not self.preflight.gradient_unconfirmed:
            return possible
        return [stage.doubled(restarts=False) for stage in possible]

    def _count(self, outcomes: Outcomes, stages: Sequence[Stage]) -> int:
        """On how many images one of the stages succeeded."""
        codes = [self.attack.code(stage, self.middle) for stage in self._possible(stages)]
        return int(np.isin(outcomes.felled_by, codes).sum())

    def _solver_gap(self, trace: Trace) -> Check:
        rows = torch.tensor(sorted(trace.ends), dtype=torch.int64)
        ends = torch.stack([trace.ends[row] for row in rows.tolist()]) if len(rows) else self.images[:0]
        return solver_gap(
            self.judge, self.images[rows], self.labels[rows], ends, norm=self.threat.norm, epsilon=self.middle
        )

    def _gradient_fidelity(self) -> Check:
        rows = self.attack.chunks[0]
        correct = torch.from_numpy(rows[self.clean[rows] == ROBUST])
        return fidelity_check(
            self.judge,
            self.images[correct],
            norm=self.threat.norm,
            epsilon=self.middle,
            adjoint=True,
            received=self.attack.received,
        )

    def _unbounded(self, stage: Stage) -> Check:
        """Check 9, in the smallest ball that contains plain grey for every image."""
        norm, grey = self.threat.norm, self.clean.copy()
        radius = grey_radius(norm, tuple(self.images.shape[1:]))
        attacked = self._attack(stage, radius, counts=False).letters
        correct = torch.from_numpy(self.clean == ROBUST)
        if correct.any():
            images, labels = self.images[correct], self.labels[correct]
            points = torch.full_like(images, 0.5)
            grey[correct.numpy()] = self.judge.candidates(images, labels, points, norm=norm, epsilon=radius).letters
        return comparison.unbounded(attacked, grey)


def _by_queries(stage: Stage) -> bool:
    """Whether a stage needs nothing but the logits of the model itself."""
    return not (stage.definition.uses_gradients or stage.definition.needs_sources)
