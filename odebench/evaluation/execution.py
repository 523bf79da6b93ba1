"""Executing an evaluation: a preflight, the attack chunk by chunk, and what was measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from odebench.attack.definition import DiagnosisDefinition, Stage, load_attack
from odebench.attack.probes import probes
from odebench.attack.received import Received
from odebench.dataset import Split
from odebench.errors import UsageError
from odebench.evaluation.diagnosis import Diagnosis
from odebench.evaluation.environment import device_name, versions
from odebench.evaluation.estimate import estimate
from odebench.evaluation.examination import Examination, examine
from odebench.evaluation.fresh_start import started_early
from odebench.evaluation.loading import LoadedModels
from odebench.evaluation.measurements import Measurements, Setup
from odebench.evaluation.outcome_accumulator import Outcomes
from odebench.evaluation.preflight import ALL, Preflight, chunks, run_preflight
from odebench.evaluation.staged_attack import StagedAttack
from odebench.evaluation.verdict import Judge
from odebench.evaluation.way_back import unfreeze_where_needed
from odebench.numerics.precision import full_fp32
from odebench.progress import SILENT, Progress, Step
from odebench.protocol.spec import Evaluation, ThreatModel
from odebench.result.outcome import EXAMINATION, ROBUST
from odebench.result.schema import Check, Found


def measure(
    evaluation: Evaluation,
    models: LoadedModels,
    split: Split,
    *,
    rows: slice = ALL,
    candidates: Mapping[float, Tensor] | None = None,
    keep_candidates: bool = False,
    preflights: dict[ThreatModel, Preflight] | None = None,
    examinations: dict[str, Examination] | None = None,
    progress: Progress = SILENT,
) -> Measurements:
    """What an evaluation measures on some `rows` of its images, whole chunks of its slice of `split`.

    `candidates` are those made elsewhere, by epsilon, one for each image of the slice. With `keep_candidates` the
    outcomes hold the last candidate judged for each attacked image. `preflights` are filled and used again, so that
    clean predictions are made once for several attacks on the same models and slice; so are `examinations`, by run key,
    so that the first chunk is attacked once for several `rows` of one evaluation.

    Raises ModelError for a model that raises or does not return logits, and AttackError for an attack that raises:
    neither ever counts as robustness.
    """
    attack, first = load_attack(evaluation.attack.name), evaluation.dataset.offset
    images = split.part(slice(first, first + evaluation.dataset.n))
    preflights = {} if preflights is None else preflights
    with ExitStack() as frozen, full_fp32():
        for classifier in [models.classifier, *models.sources.values()]:
            frozen.enter_context(classifier.frozen())
        if models.handed_over:
            unfreeze_where_needed(models, evaluation, images, progress)
        run = _Run(evaluation, models, images, rows, candidates or {}, keep_candidates, progress)
        run.examinations = {} if examinations is None else examinations
        preflight = preflights.get(evaluation.threat_model)
        if preflight is None:
            preflight = run_preflight(
                evaluation,
                models.classifier,
                images,
                handed_over=models.handed_over,
                rows=rows,
                progress=progress,
            )
            preflights[evaluation.threat_model] = preflight
        if attack.examines_model and models.start is not None and not preflight.state and preflight.passes == 1:
            run.start = frozen.enter_context(started_early(models.start))
        return run.measure(preflight, split.sha256)


class _Run:
    """One evaluation under way on the `rows` of its slice `whole`."""

    def __init__(
        self,
        evaluation: Evaluation,
        models: LoadedModels,
        whole: Split,
        rows: slice,
        candidates: Mapping[float, Tensor],
        keep_candidates: bool,
        progress: Progress,
    ) -> None:
        self.evaluation, self.models, self.received = evaluation, models, Received()
        self.whole, self.images, self.first = whole, whole.part(rows), rows.start or 0
        self.candidates = {epsilon: given[rows] for epsilon, given in candidates.items()}
        self.keep_candidates, self.progress, self.start = keep_candidates, progress, models.start
        self.examinations: dict[str, Examination] = {}
        self.attack, self.chunks = load_attack(evaluation.attack.name), chunks(evaluation, len(self.images))
        self.stages, self.left_out = self._stages(gradient_unconfirmed=False)
        if not self.stages:
            raise UsageError(f"{self.attack.name} needs other models to craft candidates on; name them as sources")
        if self.left_out:
            progress.say("no source to craft candidates on: the transfer stage is left out")
        if models.train_images is None and any(stage.tripwire for stage in self.stages):
            progress.say("no train images to begin at: boundary and substitute are left out")
        missing = set(evaluation.threat_model.epsilons) - set(candidates)
        if missing and any(stage.definition.needs_candidates for stage in self.stages):
            raise UsageError(f"{self.attack.name} are made elsewhere: judge a file of them with odebench judge")

    @property
    def _usual(self) -> list[Stage]:
        return [stage for stage in self.stages if not stage.only_in_doubt]

    def _stages(self, *, gradient_unconfirmed: bool) -> tuple[list[Stage], bool]:
        """The stages that there are sources for, and whether others are left out."""
        stages = self.attack.stages(
            self.evaluation.attack.parameters,
            norm=self.evaluation.threat_model.norm,
            n_classes=self.models.classifier.n_classes,
            gradient_unconfirmed=gradient_unconfirmed,
            in_doubt=True,
        )
        possible = [stage for stage in stages if self.models.sources or not stage.definition.needs_sources]
        left_out = len(possible) < len(stages)
        if self.models.train_images is None:
            # An attack by this name says what is missing; among others it is left out.
            possible = [one for one in possible if len(stages) == 1 or not one.definition.needs_train_images]
        return possible, left_out

    @property
    def passes(self) -> int:
        """How many gradients of one image the attack takes at most, at one epsilon."""
        return sum(stage.passes for stage in self._usual)

    def measure(self, preflight: Preflight, dataset_sha256: str) -> Measurements:
        """Attacks all images and returns what was found."""
        evaluation, classifier = self.evaluation, self.models.classifier
        if preflight.gradient_unconfirmed:
            # A step of a randomised model takes twenty passes already, and its noise hides the gain of a second start.
            steady = preflight.passes == 1
            stages, _ = self._stages(gradient_unconfirmed=steady)
            restarts = steady and not isinstance(self.attack, DiagnosisDefinition)
            self.stages = [stage.doubled(restarts=restarts) for stage in stages]
        judge = preflight.judge(classifier)
        attack = self._attack_on(self.images, self.first, judge)
        self._say_estimate(preflight)
        started = time.perf_counter()
        outcomes, checks = self._attack_all(attack, preflight)
        seconds = time.perf_counter() - started + preflight.seconds
        examination = self._examine(outcomes, preflight, [*preflight.checks, *checks])
        checks = [*examination.checks, *checks]
        if examination.doubt and len(self._usual) < len(self.stages):
            self.progress.say(f"doubt: {examination.doubt[0]}; attacks that false gradients do not mislead run in full")
            started = time.perf_counter()
            self._attack_in_doubt(attack, outcomes)
            seconds += time.perf_counter() - started
        forward, backward = attack.passes
        return Measurements(
            setup=Setup(
                run_key=evaluation.run_key,
                found=Found(
                    dataset_sha256=dataset_sha256,
                    weights_sha256=self.models.weights_sha256,
                    sources_sha256=dict(self.models.sources_sha256),
                    parameters=classifier.parameters,
                    versions=versions(),
                    device=device_name(str(classifier.device)),
                    threads=torch.get_num_threads(),
                    trained_on=self.models.trained_on,
                    candidates=None,
                ),
                alone=judge.alone,
                randomised=judge.passes > 1,
                gradient_unconfirmed=preflight.gradient_unconfirmed,
                left_out=self.left_out and self.models.handed_over,
                few_candidates=self._few_candidates(preflight),
                legend=attack.legend,
                checks=(*preflight.checks, *checks),
                doubt=examination.doubt,
            ),
            first=self.first,
            clean=preflight.clean,
            logits=preflight.opinion.answer.logits,
            nfe=preflight.opinion.answer.nfe,
            useless=preflight.useless,
            outcomes=tuple(outcomes),
            forward_images=forward + judge.forward_images,
            backward_images=backward,
            seconds=seconds,
            stages=dict(attack.taken),
        )

    def _attack_on(self, images: Split, first: int, judge: Judge) -> StagedAttack:
        return StagedAttack(
            self.evaluation,
            self.stages,
            self.models,
            judge,
            images,
            first=first,
            candidates=self.candidates,
            received=self.received,
        )

    @property
    def _examination_passes(self) -> float:
        parts = probes({}, norm=self.evaluation.threat_model.norm, n_classes=self.models.classifier.n_classes)
        attack = self.passes * len(self.evaluation.threat_model.epsilons) if self.first else 0
        return attack + parts.single_step.passes + parts.random.passes + parts.iterated.passes

    def _examine(self, outcomes: Sequence[Outcomes], preflight: Preflight, checks: Sequence[Check]) -> Examination:
        """The checks of the first chunk after the attack on it, and the reasons for doubt.

        Where these images do not begin with the first chunk, it is attacked for this alone: the reasons must be those
        of the whole evaluation. What other rows of the evaluation have found there is taken from them.
        """
        if not self.attack.examines_model:
            return Examination()
        key = self.evaluation.run_key
        if key not in self.examinations:
            self.examinations[key] = self._examination(outcomes, preflight, checks)
        return self.examinations[key]

    def _examination(self, outcomes: Sequence[Outcomes], preflight: Preflight, checks: Sequence[Check]) -> Examination:
        judge = preflight.judge(self.models.classifier)
        probing = self._attack_on(self.whole.part(slice(0, self.evaluation.chunk)), 0, judge)
        name = f"checks {', '.join(str(check.value) for check in sorted(EXAMINATION))}"
        with self.progress.track(name, total=self._examination_passes) as step:
            if self.first:
                found = self._attack_each_epsilon(probing, preflight.first_clean, step)
            else:
                found = [one.first(len(probing.images)) for one in outcomes]
            return examine(probing, found, preflight, self.stages, checks, self.start, step)

    def _attack_in_doubt(self, attack: StagedAttack, outcomes: Sequence[Outcomes]) -> None:
        """Runs the stages for doubt on the images that are still robust, at rising epsilon."""
        stages = [stage for stage in self.stages if stage.only_in_doubt]
        total = sum(stage.passes for stage in stages) * len(self.chunks) * len(outcomes)
        with self.progress.track(f"attacking with {self.attack.name}, in doubt", total=total) as step:
            for index, epsilon in enumerate(self.evaluation.threat_model.epsilons):
                if index:
                    outcomes[index].join_letters(outcomes[index - 1])
                attack.attack_images(epsilon, outcomes[index], step, stages=stages)

    def _say_estimate(self, preflight: Preflight) -> None:
        """Says how long attack and checks may take, from the time that the gradients of one chunk took."""
        told = estimate(
            self._usual,
            chunk=min(self.evaluation.chunk, len(self.whole)),
            chunks=len(self.chunks),
            epsilons=(count := len(self.evaluation.threat_model.epsilons)),
            gradient=preflight.slowest,
            checks=self.attack.examines_model and preflight.passes == 1,
            alone=preflight.alone,
        )
        self.progress.say(
            f"{self.attack.name} on {len(self.images)} images, {count} epsilon{'s' * (count > 1)}, {self.passes} "
            f"pass{'es' * (self.passes != 1)} each: {told}"
        )

    def _few_candidates(self, preflight: Preflight) -> bool:
        """Whether a file has no candidate for some images that could be attacked: these are judged as they are."""
        correct = torch.from_numpy(preflight.clean == ROBUST)
        missing = [
            int((candidates == self.images.images).flatten(1).all(1)[correct].sum())
            for candidates in self.candidates.values()
        ]
        if any(missing):
            self.progress.say(
                f"the file has no candidate for {max(missing)} of {preflight.correct} images: these count as robust"
            )
        return any(missing)

    def _attack_all(self, attack: StagedAttack, preflight: Preflight) -> tuple[list[Outcomes], list[Check]]:
        """The outcomes at each epsilon, and the checks that the attack makes itself."""
        total = self.passes * len(self.chunks) * len(self.evaluation.threat_model.epsilons)
        with self.progress.track(f"attacking with {self.attack.name}", total=total) as step:
            if isinstance(self.attack, DiagnosisDefinition):
                return Diagnosis(self.attack, attack, preflight, step).run()
            return self._attack_each_epsilon(attack, preflight.clean, step), []

    def _attack_each_epsilon(self, attack: StagedAttack, clean: np.ndarray, step: Step) -> list[Outcomes]:
        found: list[Outcomes] = []
        for epsilon in self.evaluation.threat_model.epsilons:
            outcomes = Outcomes.of(clean, keep_candidates=self.keep_candidates)
            if found and self.attack.carries_over:
                outcomes.carry_over(found[-1])
            attack.attack_images(epsilon, outcomes, step, stages=self._usual)
            found.append(outcomes)
        return found
