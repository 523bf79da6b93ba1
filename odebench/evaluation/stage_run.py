"""One call of one attack: its candidates are judged, and what the verdict says is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odebench.attack.definition import Stage
from odebench.attack.trace import Trace
from odebench.attack.wrapped_model import WrappedModel
from odebench.errors import AttackError, OdebenchError
from odebench.evaluation.outcome_accumulator import Outcomes
from odebench.evaluation.verdict import Judge, Verdict
from odebench.io.text import first_line
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.seeding import call_seed, seeded
from odebench.numerics.shapes import Images, Labels
from odebench.progress import Step
from odebench.protocol.spec import Evaluation
from odebench.result.outcome import ROBUST, SUCCESSFUL


@dataclass(frozen=True)
class StageInputs:
    """What all stages of an evaluation work with: the judge, the images, the sources of transfer, candidates made
    elsewhere by epsilon, and train images (None where the data set has none)."""

    evaluation: Evaluation
    judge: Judge
    images: Images
    labels: Labels
    sources: list[WrappedModel]
    candidates: Mapping[float, Tensor]
    train_images: Images | None
    device: torch.device


@dataclass(eq=False)
class StageRun:
    """One call of one attack: on the robust images `rows` of chunk `number`, at one epsilon, through one model.

    `code` is that of felled_by for a success of this stage. `start` holds where an earlier call, under the coarse
    solver, left the images, by position: an attack that can resume goes on from there for a quarter of its steps.
    `ends` is where this call leaves the images that are still robust. A `turn` after the first draws its own random
    numbers.
    """

    inputs: StageInputs
    stage: Stage
    code: str
    wrapped: WrappedModel
    number: int
    rows: np.ndarray
    epsilon: float
    outcomes: Outcomes
    trace: Trace | None
    start: Mapping[int, Tensor]
    turn: int

    def __post_init__(self) -> None:
        self.norm = self.inputs.evaluation.threat_model.norm
        self.images, self.labels = self.inputs.images[self.rows], self.inputs.labels[self.rows]
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

        watched = self.inputs.sources if self.stage.definition.needs_sources else [self.wrapped]
        hooks = [wrapped.register_forward_hook(count) for wrapped in watched]
        self.wrapped.failures.clear()
        for wrapped in {self.wrapped, *watched}:
            wrapped.at_scale_of(self.norm, self.epsilon)
        try:
            candidates = self._candidates()
        finally:
            for hook in hooks:
                hook.remove()
        left = self.robust.nonzero().flatten()
        if len(left):
            verdict = self._judge(left, candidates[left])
            self.outcomes.record(self.rows[left.numpy()], verdict, self.code)
            self.robust[left] = torch.from_numpy(verdict.letters == ROBUST)
        if self.trace is not None:
            self._judge_path(self.trace, candidates)
        self._judge_failures()
        self.ends = dict(zip(self.rows[self.robust.numpy()].tolist(), candidates[self.robust], strict=True))
        return reported

    def _judge(self, local: Tensor, candidates: Tensor) -> Verdict:
        return self.inputs.judge.candidates(
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
        self.outcomes.record(self.rows[local[successful].numpy()], verdict.only(successful), self.code)
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
            if near.any():
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
        spec, device = self.inputs.evaluation.attack, self.inputs.device
        try:
            attack = stage.definition.load()
            # Copies: the verdict measures from the clean images, which an attack must not move.
            # Seeded around it as well: what a randomised model draws must not hang on what was asked before.
            seed = call_seed(spec.seed, chunk=self.number, stage=seeded_as, epsilon=self.epsilon)
            with watching, seeded(seed):
                found = attack(
                    self.wrapped,
                    self.images.to(device, copy=True),
                    self.labels.to(device, copy=True),
                    norm=self.norm,
                    epsilon=self.epsilon,
                    seed=seed,
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
        definition = self.stage.definition
        arguments: dict[str, Any] = dict(self.stage.parameters)
        if self.start and definition.resumes is not None:
            start = torch.stack([self.start[row] for row in self.rows.tolist()])
            arguments |= {"start": start.to(self.inputs.device), definition.resumes: self.stage.resumed_steps}
        if definition.needs_sources:
            arguments["sources"] = self.inputs.sources
        if definition.needs_train_images:
            arguments["train_images"] = self.inputs.train_images
        if definition.needs_candidates:
            arguments["proposals"] = self.inputs.candidates[self.epsilon][self.rows]
        return arguments
