"""Attacking one chunk, stage by stage, each on the images that still stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.definition import Stage
from odebench.attack.trace import Trace
from odebench.attack.wrapped_model import WrappedModel
from odebench.errors import AttackError, OdebenchError
from odebench.evaluation.outcomes import Outcomes
from odebench.evaluation.verdict import Judge, Verdict
from odebench.io.text import first_line
from odebench.model.classifier import Classifier
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.seeding import call_seed
from odebench.progress import Step
from odebench.protocol.spec import Evaluation, radius
from odebench.registry import load_target
from odebench.result.outcome import SUCCESSFUL
from odebench.result.schema import felled_letters

FellCheck = Callable[[Tensor, Tensor], Tensor]


class StagedAttack:
    """The stages of an evaluation against one model.

    A surrogate (the same weights under a cheaper solver) proposes first; the declared solver is attacked for what
    it leaves standing. Whatever proposes, the judge alone decides. `legend` says what a letter of felled_by means:
    the stage, and for an attack that carries falls to larger epsilons also the epsilon.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        stages: Sequence[Stage],
        classifier: Classifier,
        judge: Judge,
        images: Float[Tensor, "n channel height width"],
        labels: Int[Tensor, " n"],
        *,
        sources: Sequence[Classifier],
        given: Mapping[float, Tensor],
        carries_falls: bool,
    ) -> None:
        self.evaluation, self.stages, self.judge = evaluation, stages, judge
        self.images, self.labels, self.given = images, labels, given
        self.device, precision = classifier.device, evaluation.precision
        asked: dict[str, Any] = {"precision": precision, "passes": judge.passes}
        self.surface = WrappedModel(classifier, alone=judge.alone, **asked)
        self.surrogate = None
        if evaluation.attack.surrogate is not None:
            cheap = Classifier(
                classifier.module,
                n_classes=classifier.n_classes,
                device=classifier.device,
                horizon=classifier.horizon,
                solver=evaluation.attack.surrogate.solver,
            )
            # Images that share steps under the declared solver do not under a fixed-step one.
            coupled = classifier.solver is not None and classifier.solver.couples_batch
            self.surrogate = WrappedModel(cheap, alone=judge.alone and not coupled, provisional=True, **asked)
        self.sources = [WrappedModel(source, precision=precision) for source in sources]
        epsilons = evaluation.threat_model.epsilons if carries_falls else (None,)
        names = [_felled_name(stage, epsilon) for epsilon in epsilons for stage in stages]
        self.legend = felled_letters(names)
        self._letters = {name: letter for letter, name in self.legend.items()}
        self._carries = carries_falls

    @property
    def surfaces(self) -> list[WrappedModel]:
        """All that was attacked: the model, its surrogate, the sources, each with its fp32 twin if it has one."""
        asked = [self.surface, *([self.surrogate] if self.surrogate else []), *self.sources]
        return [*asked, *(surface.twin for surface in asked if surface.twin is not None)]

    @property
    def forward_images(self) -> int:
        """Images that went forward through a model while candidates were sought."""
        return sum(surface.forward_images for surface in self.surfaces)

    @property
    def backward_images(self) -> int:
        """Images that went backward."""
        return sum(surface.backward_images for surface in self.surfaces)

    def attack_chunk(
        self,
        number: int,
        rows: np.ndarray,
        epsilon: float,
        ledger: Outcomes,
        step: Step,
        *,
        stages: Sequence[Stage] | None = None,
        trace: Trace | None = None,
    ) -> None:
        """Attacks the standing images `rows` (positions in the slice) of chunk `number` of the whole order.

        By all stages, or some of them. With a `trace`, which takes one stage, the attack runs to its end: an image
        falls where it ends, or at the first point of its path that seemed to fool.
        """
        for stage in self.stages if stages is None else stages:
            reported = 0.0
            ends: dict[int, Tensor] = {}
            asked = self._asked(stage, cheap_first=trace is None)
            for turn, surface in ((turn, surface) for turn in range(stage.starts) for surface in asked):
                standing = rows[ledger.letters[rows] == "r"]
                ends = ends if surface is not asked[0] else {}
                resumed = np.isin(standing, self._faithful(stage, ends))
                for part, start in ((standing[resumed], ends), (standing[~resumed], {})):
                    if len(part):
                        call = _StageRun(self, stage, surface, number, part, epsilon, ledger, trace, start, turn)
                        share = min(stage.passes / len(asked) / stage.starts, stage.passes - reported)
                        reported += call.run(step, at_most=share)
                        ends = call.ends
            step.advance(stage.passes - reported, note=f"epsilon {radius(epsilon)}: {ledger.standing} standing")

    def _faithful(self, stage: Stage, ends: Mapping[int, Tensor]) -> list[int]:
        """The images, of those that the surrogate's attack left at `ends`, that the stage may go on with from there.

        The declared solver has at least half of the surrogate's loss there. The others were led astray.
        """
        if not ends or stage.definition.resumes is None or self.surrogate is None:
            return []
        rows = sorted(ends)
        points = torch.stack([ends[row] for row in rows]).to(self.device)
        labels = self.labels[torch.tensor(rows)].to(self.device)
        with torch.no_grad():
            true, seen = (
                torch.nn.functional.cross_entropy(surface(points), labels, reduction="none")
                for surface in (self.surface, self.surrogate)
            )
        return [row for row, good in zip(rows, (true >= seen / 2).tolist(), strict=True) if good]

    def _asked(self, stage: Stage, *, cheap_first: bool) -> list[WrappedModel]:
        """The surfaces that a stage attacks in turn: the surrogate first where there is one."""
        # An attack that goes by the surface's word alone would give up on falls that fp32 refuses.
        exact = not stage.definition.verifies_falls
        own = self.surface.exact if exact else self.surface
        if self.surrogate is None or not cheap_first:
            return [own]
        if stage.definition.needs_sources or not stage.definition.uses_gradients:
            return [own]
        return [self.surrogate.exact if exact else self.surrogate, own]

    def letter(self, stage: Stage, epsilon: float) -> str:
        """The letter of felled_by for a fall to this stage at this epsilon."""
        return self._letters[_felled_name(stage, epsilon if self._carries else None)]


def _felled_name(stage: Stage, epsilon: float | None) -> str:
    return stage.name if epsilon is None else f"{stage.name} at {epsilon:.6g}"


class _StageRun:
    """One call of one attack: on the standing images of one chunk, at one epsilon, through one surface.

    `start` holds where an earlier call, through the surrogate, has left the images (by position): an attack that can
    goes on from there, for a quarter of its steps. `ends` is where this one leaves those that it did not fell. A `turn`
    after the first has random numbers of its own.
    """

    def __init__(
        self,
        siege: StagedAttack,
        stage: Stage,
        surface: WrappedModel,
        number: int,
        rows: np.ndarray,
        epsilon: float,
        ledger: Outcomes,
        trace: Trace | None,
        start: Mapping[int, Tensor],
        turn: int,
    ) -> None:
        self.siege, self.stage, self.surface, self.trace = siege, stage, surface, trace
        self.number, self.rows, self.epsilon, self.ledger = number, rows, epsilon, ledger
        self.norm = siege.evaluation.threat_model.norm
        self.images, self.labels = siege.images[rows], siege.labels[rows]
        self.standing = torch.ones(len(rows), dtype=torch.bool)
        self.letter = siege.letter(stage, epsilon)
        self.start = torch.stack([start[row] for row in rows.tolist()]) if start else None
        self.ends: dict[int, Tensor] = {}
        self.seeded_as = f"{stage.seeded_as or stage.name}{f' start {turn + 1}' if turn else ''}"

    def run(self, step: Step, *, at_most: float) -> float:
        """Attacks and judges; returns how many passes it reported to `step`, `at_most` at most."""
        reported = 0.0

        def count(*_: object) -> None:
            nonlocal reported
            if reported + 1 <= at_most:
                reported += 1
                step.advance()

        watched = self.siege.sources if self.stage.definition.needs_sources else [self.surface]
        hooks = [surface.register_forward_hook(count) for surface in watched]
        self.surface.failures.clear()
        try:
            candidates = self._candidates()
        finally:
            for hook in hooks:
                hook.remove()
        left = self.standing.nonzero().flatten()
        if len(left):
            verdict = self._judge(left, candidates[left])
            self.ledger.enter(self.rows[left.numpy()], verdict, self.letter)
            self.standing[left] = torch.from_numpy(verdict.letters == "r")
        if self.trace is not None:
            self._judge_path(self.trace, candidates)
        self._judge_failures()
        left = self.standing.nonzero().flatten()
        self.ends = dict(zip(self.rows[left.numpy()].tolist(), candidates[left], strict=True))
        return reported

    def _judge(self, local: Tensor, candidates: Tensor) -> Verdict:
        return self.siege.judge.candidates(
            self.images[local],
            self.labels[local],
            candidates,
            norm=self.norm,
            epsilon=self.epsilon,
            fixed_budget=self.stage.definition.fixed_budget,
        )

    def _fallen(self, local: Tensor, candidates: Tensor) -> Tensor:
        local, here = local.cpu(), candidates.detach().cpu().float()
        if not len(local):
            return torch.zeros(0, dtype=torch.bool, device=candidates.device)
        verdict = self._judge(local, here)
        down = torch.from_numpy(np.isin(verdict.letters, list(SUCCESSFUL)))
        self.ledger.enter(self.rows[local[down].numpy()], verdict.only(down), self.letter)
        self.standing[local[down]] = False
        return down.to(candidates.device)

    def _judge_path(self, trace: Trace, ends: Tensor) -> None:
        """Judges the first suspected fall of each image that stands at the end of its path."""
        trace.ends.update(zip(self.rows.tolist(), ends, strict=True))
        here = [index for index in self.standing.nonzero().flatten().tolist() if self.rows[index] in trace.suspects]
        if here:
            points = torch.stack([trace.suspects[int(self.rows[index])] for index in here])
            trace.silent += int(self._fallen(torch.tensor(here), points).sum())

    def _judge_failures(self) -> None:
        """Every input at which the model failed is a candidate for each standing image within whose budget it is."""
        for point in self.surface.failures:
            rows = self.standing.nonzero().flatten()
            here = point.cpu()[None].expand(len(rows), *point.shape)
            near = distance(self.images[rows], here, norm=self.norm) <= self.epsilon + ROUNDING
            if near.any():
                self._fallen(rows[near], here[near])

    def _candidates(self) -> Tensor:
        spec, device, stage = self.siege.evaluation.attack, self.siege.device, self.stage
        extra: dict[str, object] = dict(stage.parameters)
        resumes = stage.definition.resumes
        if self.start is not None and resumes is not None:
            extra |= {"start": self.start.to(device), resumes: stage.resumed_steps}
        if stage.definition.needs_sources:
            extra["sources"] = self.siege.sources
        if stage.definition.needs_candidates:
            extra["proposals"] = self.siege.given[self.epsilon][self.rows]
        watching: AbstractContextManager[None] = nullcontext()
        if self.trace is not None:
            watching = self.trace.watching(
                self.surface, self.rows, self.images, self.labels, norm=self.norm, epsilon=self.epsilon
            )
        seed = call_seed(spec.seed, chunk=self.number, stage=self.seeded_as, epsilon=self.epsilon)
        try:
            attack = load_target(stage.definition.function)
            # Copies: the verdict measures from the clean images, which an attack must not move.
            with watching:
                found = attack(
                    self.surface,
                    self.images.to(device, copy=True),
                    self.labels.to(device, copy=True),
                    norm=self.norm,
                    epsilon=self.epsilon,
                    seed=seed,
                    fallen=self._fallen if self.trace is None else None,
                    **extra,
                )
        except (OdebenchError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            said = f"raised {type(error).__name__}: {first_line(error)}"
            raise AttackError(f"the attack {stage.name} {said}") from error
        if not isinstance(found, Tensor) or found.shape != self.images.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            expected = tuple(self.images.shape)
            raise AttackError(f"the attack {stage.name} returned {shape} for images of shape {expected}")
        return found.detach().cpu().float()
