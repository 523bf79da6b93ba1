"""Attacking images chunk by chunk, stage by stage, each stage on the images that are still robust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odebench.attack.definition import Stage, load_attack
from odebench.attack.trace import Trace
from odebench.attack.wrapped_model import WrappedModel
from odebench.dataset import Split
from odebench.errors import AttackError, OdebenchError
from odebench.evaluation.loading import LoadedModels
from odebench.evaluation.outcomes import Outcomes
from odebench.evaluation.preflight import chunks
from odebench.evaluation.verdict import Judge, Verdict
from odebench.io.text import first_line
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.seeding import call_seed
from odebench.progress import Step
from odebench.protocol.spec import Evaluation, radius
from odebench.registry import load_target
from odebench.result.outcome import ROBUST, SUCCESSFUL
from odebench.result.schema import felled_letters


class StagedAttack:
    """The stages of an evaluation against one model, on `images` that begin at `first` of the evaluation's slice.

    Where the evaluation has a coarse solver, each stage first attacks the same weights under it, and then the declared
    solver for the images that are still robust. The judge alone decides, whoever proposes a candidate. `legend` says
    what a letter of felled_by means: the stage, and the epsilon too if outcomes carry over to larger epsilons.
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
    ) -> None:
        self.evaluation, self.stages, self.judge, self.train_images = evaluation, stages, judge, models.train_images
        self.images, self.labels, self.candidates = images.images, images.labels, candidates
        self.chunks = chunks(evaluation, len(images))
        self.first_chunk = (evaluation.dataset.offset + first) // evaluation.chunk
        classifier, self.device = models.classifier, models.classifier.device
        asked: dict[str, Any] = {"precision": evaluation.precision, "passes": judge.passes}
        self.declared = WrappedModel(classifier, alone=judge.alone, **asked)
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
        self._carries = load_attack(evaluation.attack.name).carries_over
        epsilons = evaluation.threat_model.epsilons if self._carries else (None,)
        self.legend = felled_letters([_felled_name(stage, epsilon) for epsilon in epsilons for stage in stages])
        self._letters = {name: letter for letter, name in self.legend.items()}

    @property
    def passes(self) -> tuple[int, int]:
        """How many images went forward and backward through models and sources while candidates were sought."""
        asked = [self.declared, *([self.coarse] if self.coarse else []), *self.sources]
        asked += [wrapped.fp32 for wrapped in asked if wrapped.fp32 is not wrapped]
        return sum(wrapped.forward_images for wrapped in asked), sum(wrapped.backward_images for wrapped in asked)

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
        """One stage on the robust images among `rows`, the positions of the images of chunk `number`
        of the whole order."""
        reported = 0.0
        ends: dict[int, Tensor] = {}
        asked = self._asked(stage, coarse_first=trace is None)
        for turn, wrapped in ((turn, wrapped) for turn in range(stage.starts) for wrapped in asked):
            robust = rows[outcomes.letters[rows] == ROBUST][: stage.most_images]
            ends = ends if wrapped is not asked[0] else {}
            resumed = np.isin(robust, self._resumable(stage, ends))
            for part, start in ((robust[resumed], ends), (robust[~resumed], {})):
                if len(part):
                    run = _StageRun(self, stage, wrapped, number, part, epsilon, outcomes, trace, start, turn)
                    share = min(stage.passes / len(asked) / stage.starts, stage.passes - reported)
                    reported += run.run(step, at_most=share)
                    ends = run.ends
        step.advance(stage.passes - reported, note=f"epsilon {radius(epsilon)}: {outcomes.robust} standing")

    def _resumable(self, stage: Stage, ends: Mapping[int, Tensor]) -> list[int]:
        """The images that the stage may go on attacking from `ends`, where it left them under the coarse solver: those
        whose loss there under the declared solver is at least half of that under the coarse one."""
        if not ends or stage.definition.resumes is None or self.coarse is None:
            return []
        rows = sorted(ends)
        points = torch.stack([ends[row] for row in rows]).to(self.device)
        labels = self.labels[torch.tensor(rows)].to(self.device)
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
        declared = self.declared.fp32 if in_fp32 else self.declared
        follows_gradients = stage.definition.uses_gradients and not stage.definition.needs_sources
        if self.coarse is None or not coarse_first or not follows_gradients:
            return [declared]
        return [self.coarse.fp32 if in_fp32 else self.coarse, declared]

    def letter(self, stage: Stage, epsilon: float) -> str:
        """The letter of felled_by for success of this stage at this epsilon."""
        return self._letters[_felled_name(stage, epsilon if self._carries else None)]


def _felled_name(stage: Stage, epsilon: float | None) -> str:
    return stage.name if epsilon is None else f"{stage.name} at {epsilon:.6g}"


@dataclass(eq=False)
class _StageRun:
    """One call of one attack: on the robust images `rows` of chunk `number`, at one epsilon, through one model.

    `start` holds where an earlier call, under the coarse solver, left the images, by position: an attack that can
    resume goes on from there for a quarter of its steps. `ends` is where this call leaves the images that are still
    robust. A `turn` after the first draws its own random numbers.
    """

    attack: StagedAttack
    stage: Stage
    wrapped: WrappedModel
    number: int
    rows: np.ndarray
    epsilon: float
    outcomes: Outcomes
    trace: Trace | None
    start: Mapping[int, Tensor]
    turn: int

    def __post_init__(self) -> None:
        self.norm = self.attack.evaluation.threat_model.norm
        self.images, self.labels = self.attack.images[self.rows], self.attack.labels[self.rows]
        self.letter = self.attack.letter(self.stage, self.epsilon)
        self.robust = torch.ones(len(self.rows), dtype=torch.bool)
        self.ends: dict[int, Tensor] = {}

    def run(self, step: Step, *, at_most: float) -> float:
        """Attacks and judges; returns how many passes it reported to `step`, `at_most` at most."""
        reported = 0.0

        def count(*_: object) -> None:
            nonlocal reported
            if reported + 1 <= at_most:
                reported += 1
                step.advance()

        watched = self.attack.sources if self.stage.definition.needs_sources else [self.wrapped]
        hooks = [wrapped.register_forward_hook(count) for wrapped in watched]
        self.wrapped.failures.clear()
        try:
            candidates = self._candidates()
        finally:
            for hook in hooks:
                hook.remove()
        left = self.robust.nonzero().flatten()
        if len(left):
            verdict = self._judge(left, candidates[left])
            self.outcomes.record(self.rows[left.numpy()], verdict, self.letter)
            self.robust[left] = torch.from_numpy(verdict.letters == ROBUST)
        if self.trace is not None:
            self._judge_path(self.trace, candidates)
        self._judge_failures()
        self.ends = dict(zip(self.rows[self.robust.numpy()].tolist(), candidates[self.robust], strict=True))
        return reported

    def _judge(self, local: Tensor, candidates: Tensor) -> Verdict:
        return self.attack.judge.candidates(
            self.images[local],
            self.labels[local],
            candidates,
            norm=self.norm,
            epsilon=self.epsilon,
            fixed_budget=self.stage.definition.fixed_budget,
        )

    def _successful(self, local: Tensor, candidates: Tensor) -> Tensor:
        """Which candidates of the images at `local` succeed; those are recorded, and their images attacked no more."""
        local, here = local.cpu(), candidates.detach().cpu().float()
        if not len(local):
            return torch.zeros(0, dtype=torch.bool, device=candidates.device)
        verdict = self._judge(local, here)
        successful = torch.from_numpy(np.isin(verdict.letters, list(SUCCESSFUL)))
        self.outcomes.record(self.rows[local[successful].numpy()], verdict.only(successful), self.letter)
        self.robust[local[successful]] = False
        return successful.to(candidates.device)

    def _judge_path(self, trace: Trace, ends: Tensor) -> None:
        """Judges, for each image that is robust at its end, the first point that seemed to fool the model."""
        trace.ends.update(zip(self.rows.tolist(), ends, strict=True))
        robust = self.robust.nonzero().flatten().tolist()
        suspected = [index for index in robust if self.rows[index] in trace.suspects]
        if suspected:
            points = torch.stack([trace.suspects[int(self.rows[index])] for index in suspected])
            trace.silent_successes += int(self._successful(torch.tensor(suspected), points).sum())

    def _judge_failures(self) -> None:
        """Judges each input at which the model failed as a candidate for every robust image within reach of it."""
        for point in self.wrapped.failures:
            rows = self.robust.nonzero().flatten()
            here = point.cpu()[None].expand(len(rows), *point.shape)
            near = distance(self.images[rows], here, norm=self.norm) <= self.epsilon + ROUNDING
            self._successful(rows[near], here[near])

    def _candidates(self) -> Tensor:
        """What the attack returns, on the CPU. Raises AttackError if it raises or returns something else."""
        stage, name, arguments = self.stage, self.stage.name, self._arguments()
        watching: AbstractContextManager[None] = nullcontext()
        if self.trace is not None:
            watching = self.trace.watching(
                self.wrapped, self.rows, self.images, self.labels, norm=self.norm, epsilon=self.epsilon
            )
        seeded_as = f"{stage.seeded_as or name}{f' start {self.turn + 1}' if self.turn else ''}"
        spec, device = self.attack.evaluation.attack, self.attack.device
        try:
            attack = load_target(stage.definition.function)
            # Copies: the verdict measures from the clean images, which an attack must not move.
            with watching:
                found = attack(
                    self.wrapped,
                    self.images.to(device, copy=True),
                    self.labels.to(device, copy=True),
                    norm=self.norm,
                    epsilon=self.epsilon,
                    seed=call_seed(spec.seed, chunk=self.number, stage=seeded_as, epsilon=self.epsilon),
                    fallen=self._successful if self.trace is None else None,
                    **arguments,
                )
        except (OdebenchError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise AttackError(f"the attack {name} raised {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(found, Tensor) or found.shape != self.images.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise AttackError(f"the attack {name} returned {shape} for images of shape {tuple(self.images.shape)}")
        return found.detach().cpu().float()

    def _arguments(self) -> dict[str, Any]:
        """The parameters of the attack, and what it needs besides: starts, sources or the candidates of a file."""
        definition, arguments = self.stage.definition, dict[str, Any](self.stage.parameters)
        if self.start and definition.resumes is not None:
            start = torch.stack([self.start[row] for row in self.rows.tolist()])
            arguments |= {"start": start.to(self.attack.device), definition.resumes: self.stage.resumed_steps}
        if definition.needs_sources:
            arguments["sources"] = self.attack.sources
        if definition.needs_train_images:
            arguments["train_images"] = self.attack.train_images
        if definition.needs_candidates:
            arguments["proposals"] = self.attack.candidates[self.epsilon][self.rows]
        return arguments
