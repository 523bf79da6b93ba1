"""Attacking images chunk by chunk, stage by stage, each stage on the images that are still robust."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odebench.attack.definition import Stage, load_attack
from odebench.attack.received import Received
from odebench.attack.trace import Trace
from odebench.attack.wrapped_model import WrappedModel
from odebench.dataset import Split
from odebench.evaluation.loading import LoadedModels
from odebench.evaluation.measurements import Passes
from odebench.evaluation.outcome_accumulator import Outcomes
from odebench.evaluation.preflight import chunks
from odebench.evaluation.stage_run import StageInputs, StageRun
from odebench.evaluation.verdict import Judge
from odebench.progress import Step
from odebench.protocol.spec import Evaluation, radius
from odebench.result.outcome import ROBUST
from odebench.result.schema import UNFELLED
from odebench.result.summary import felled_codes


class StagedAttack:
    """The stages of an evaluation against one model, on `images` that begin at `first` of the evaluation's slice.

    Where the evaluation has a coarse solver, each stage first attacks the same weights under it, and then the declared
    solver for the images that are still robust. The judge alone decides, whoever proposes a candidate. `legend` says
    what a code of felled_by means: the stage, and the epsilon too if outcomes carry over to larger epsilons. `taken`
    holds by stage what it took so far. `received` takes note of gradients under the declared solver on the evaluation's
    first chunk; not of those of a randomised model, which differ at every pass.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        stages: Sequence[Stage],
        models: LoadedModels,
        judge: Judge,
        images: Split,
        *,
        first: int,
        candidates: Mapping[float, Tensor],
        received: Received | None = None,
    ) -> None:
        self.evaluation, self.stages, self.judge = evaluation, stages, judge
        self.images, self.labels = images.images, images.labels
        self.chunks = chunks(evaluation, len(images))
        self.first_chunk = (evaluation.dataset.offset + first) // evaluation.chunk
        classifier = models.classifier
        asked: dict[str, Any] = {"precision": evaluation.precision, "passes": judge.passes}
        self.declared = self.quick = WrappedModel(classifier, alone=judge.alone, **asked)
        # What a module that was handed over calls quick need not be the same function.
        if classifier.is_ode and not models.handed_over and any(stage.quick for stage in stages):
            self.quick = WrappedModel(classifier.modified(quick=True), alone=judge.alone, **asked)
        self.received = received if judge.passes == 1 else None
        self.coarse = None
        if evaluation.attack.surrogate is not None:
            # Images that share steps under the declared solver do not under a fixed-step one.
            coupled = classifier.solver is not None and classifier.solver.couples_batch
            self.coarse = WrappedModel(
                classifier.modified(solver=evaluation.attack.surrogate.solver),
                alone=judge.alone and not coupled,
                provisional=True,
                **asked,
            )
        self.sources = [WrappedModel(source, precision=evaluation.precision) for source in models.sources.values()]
        self.inputs = StageInputs(
            evaluation,
            judge,
            self.images,
            self.labels,
            self.sources,
            candidates,
            train_images=models.train_images,
            device=classifier.device,
        )
        self.taken: dict[str, Passes] = defaultdict(Passes)
        self._carries = load_attack(evaluation.attack.name).carries_over
        epsilons = evaluation.threat_model.epsilons if self._carries else (None,)
        self.legend = felled_codes([_felled_name(stage, epsilon) for epsilon in epsilons for stage in stages])
        self._codes = {name: code for code, name in self.legend.items()}

    @property
    def passes(self) -> tuple[int, int]:
        """How many images went forward and backward through models and sources while candidates were sought."""
        asked = list({self.declared, self.quick, *([self.coarse] if self.coarse else []), *self.sources})
        asked += [wrapped.fp32 for wrapped in asked if wrapped.fp32 is not wrapped]
        return sum(wrapped.forward_images for wrapped in asked), sum(wrapped.backward_images for wrapped in asked)

    def _passes_now(self) -> Passes:
        forward, backward = self.passes
        return Passes(forward=forward + self.judge.forward_images, backward=backward, seconds=time.perf_counter())

    def attack_images(
        self,
        epsilon: float,
        outcomes: Outcomes,
        step: Step,
        *,
        stages: Sequence[Stage] | None = None,
        trace: Trace | None = None,
    ) -> None:
        """Attacks all images that are robust in `outcomes`, chunk by chunk, with all stages or those given.

        With a `trace`, which takes one stage, the attack runs to its end, and succeeds on an image if its last
        candidate does, or the first point on its path that seemed to fool the model.
        """
        for number, rows in enumerate(self.chunks, self.first_chunk):
            first = number == self.evaluation.dataset.offset // self.evaluation.chunk
            for wrapped in {self.declared.fp32, self.quick.fp32}:
                wrapped.received = self.received if first else None
            for stage in self.stages if stages is None else stages:
                self._attack_chunk(number, rows, stage, epsilon, outcomes, step, trace)

    def _attack_chunk(
        self,
        number: int,
        rows: np.ndarray,
        stage: Stage,
        epsilon: float,
        outcomes: Outcomes,
        step: Step,
        trace: Trace | None,
    ) -> None:
        """One stage on the robust images among `rows`, the positions of the images of chunk `number` of all."""
        reported, before = 0.0, self._passes_now()
        ends: dict[int, Tensor] = {}
        asked = self._asked(stage, coarse_first=trace is None)
        for turn, wrapped in ((turn, wrapped) for turn in range(stage.starts) for wrapped in asked):
            robust = rows[outcomes.letters[rows] == ROBUST][: stage.most_images]
            ends = ends if wrapped is not asked[0] else {}
            resumed = np.isin(robust, self._resumable(stage, ends))
            for part, start in ((robust[resumed], ends), (robust[~resumed], {})):
                if len(part):
                    run = StageRun(
                        self.inputs,
                        stage,
                        self.code(stage, epsilon),
                        wrapped,
                        number,
                        part,
                        epsilon,
                        outcomes,
                        trace,
                        start,
                        turn,
                    )
                    share = min(stage.passes / len(asked) / stage.starts, stage.passes - reported)
                    reported += run.run(step, at_most=share)
                    ends = run.ends
        after = self._passes_now()
        self.taken[stage.name] += Passes(
            forward=after.forward - before.forward,
            backward=after.backward - before.backward,
            seconds=after.seconds - before.seconds,
        )
        step.advance(stage.passes - reported, note=f"epsilon {radius(epsilon)}: {outcomes.robust} standing")

    def _resumable(self, stage: Stage, ends: Mapping[int, Tensor]) -> list[int]:
        """The images that the stage may go on attacking from `ends`, where it left them under the coarse solver: those
        whose loss there under the declared solver is at least half of that under the coarse one."""
        if not ends or stage.definition.resumes is None or self.coarse is None:
            return []
        rows = sorted(ends)
        points = torch.stack([ends[row] for row in rows]).to(self.inputs.device)
        labels = self.labels[torch.tensor(rows)].to(self.inputs.device)
        with torch.no_grad():
            declared, coarse = (
                torch.nn.functional.cross_entropy(wrapped(points), labels, reduction="none")
                for wrapped in (self.declared, self.coarse)
            )
        return [row for row, good in zip(rows, (declared >= coarse / 2).tolist(), strict=True) if good]

    def _asked(self, stage: Stage, *, coarse_first: bool) -> list[WrappedModel]:
        """The models that a stage attacks in turn: the one under the coarse solver first, if there is one."""
        # An attack that trusts the logits of a bf16 model would give up on images that the judge finds robust.
        in_fp32 = not stage.definition.verifies_falls
        attacked = self.quick if stage.quick else self.declared
        declared = attacked.fp32 if in_fp32 else attacked
        follows_gradients = stage.definition.uses_gradients and not stage.definition.needs_sources
        if self.coarse is None or not coarse_first or not follows_gradients:
            return [declared]
        return [self.coarse.fp32 if in_fp32 else self.coarse, declared]

    def code(self, stage: Stage, epsilon: float) -> str:
        """The code of felled_by for success of this stage at this epsilon; that of a probe, which no result names, is
        the code for none."""
        return self._codes.get(_felled_name(stage, epsilon if self._carries else None), UNFELLED)


def _felled_name(stage: Stage, epsilon: float | None) -> str:
    return stage.name if epsilon is None else f"{stage.name} at {epsilon:.6g}"
