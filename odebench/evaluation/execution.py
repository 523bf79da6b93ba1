"""Running an evaluation: attack in chunks, one verdict for every candidate, checks, a standard result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.definition import DiagnosisDefinition, Stage, load_attack
from odebench.errors import UsageError
from odebench.evaluation.diagnosis import Diagnosis
from odebench.evaluation.environment import device_name, versions
from odebench.evaluation.measurements import Measurements, Setup
from odebench.evaluation.outcomes import Outcomes
from odebench.evaluation.preflight import ALL, Preflight, chunks, run_preflight
from odebench.evaluation.staged_attack import StagedAttack
from odebench.io.canonical_json import canonical_json
from odebench.model.classifier import Classifier
from odebench.numerics.precision import full_fp32
from odebench.progress import SILENT, Progress, Step
from odebench.protocol.spec import Evaluation
from odebench.result.schema import Check, Found, Result

Images = Float[Tensor, "n channel height width"]
Labels = Int[Tensor, " n"]


def execute(
    evaluation: Evaluation,
    classifier: Classifier,
    images: Images,
    labels: Labels,
    *,
    dataset_sha256: str,
    weights_sha256: str,
    sources: Mapping[str, Classifier] | None = None,
    sources_sha256: Mapping[str, str] | None = None,
    given: Mapping[float, Tensor] | None = None,
    keep: dict[float, dict[int, Tensor]] | None = None,
    handed_over: bool = True,
    laid: dict[str, Preflight] | None = None,
    progress: Progress = SILENT,
) -> Result:
    """Runs one evaluation on all images of its slice, in order, and returns its result; see `execute_portion`."""
    return execute_portion(
        evaluation,
        classifier,
        images,
        labels,
        dataset_sha256=dataset_sha256,
        weights_sha256=weights_sha256,
        sources=sources,
        sources_sha256=sources_sha256,
        given=given,
        keep=keep,
        handed_over=handed_over,
        laid=laid,
        progress=progress,
    ).result(evaluation)


def execute_portion(
    evaluation: Evaluation,
    classifier: Classifier,
    images: Images,
    labels: Labels,
    *,
    dataset_sha256: str,
    weights_sha256: str,
    rows: slice = ALL,
    sources: Mapping[str, Classifier] | None = None,
    sources_sha256: Mapping[str, str] | None = None,
    given: Mapping[float, Tensor] | None = None,
    keep: dict[float, dict[int, Tensor]] | None = None,
    handed_over: bool = True,
    laid: dict[str, Preflight] | None = None,
    progress: Progress = SILENT,
) -> Measurements:
    """Runs one evaluation on some `rows` of its images, whole chunks, and returns what that found.

    `images` and `labels` are all of the evaluation's: how the model must be asked is seen on its first chunk.
    `sources` are the models that transfer crafts candidates on; `given` are candidates made elsewhere, by epsilon,
    one for each image of the slice. `keep`, if handed over, is filled with the last candidate judged for each image
    that was attacked, by epsilon and position in the slice. Of a module that was `handed_over` nothing is known: check
    17 looks at its gradient first, and a stage that is left out for want of sources is flagged. `laid` keeps the
    groundwork for further attacks on the same model and slice, so that clean predictions are made once.

    Raises ModelError for a model that raises or returns something else than logits, and AttackError for an attack that
    raises: neither is ever counted as robustness.
    """
    with ExitStack() as frozen, full_fp32():
        for one in [classifier, *(sources or {}).values()]:
            frozen.enter_context(one.frozen())
        run = _Run(
            evaluation, classifier, images[rows], labels[rows], sources or {}, given or {}, keep, handed_over, progress
        )
        run.first = rows.start or 0
        laid = {} if laid is None else laid
        key = canonical_json(evaluation.threat_model)
        if key not in laid:
            laid[key] = run_preflight(
                evaluation, classifier, images, labels, handed_over=handed_over, rows=rows, progress=progress
            )
        run.groundwork = laid[key]
        return run.portion(dataset_sha256, weights_sha256, sources_sha256 or {})


class _Run:
    """One evaluation under way."""

    groundwork: Preflight
    first = 0

    def __init__(
        self,
        evaluation: Evaluation,
        classifier: Classifier,
        images: Images,
        labels: Labels,
        sources: Mapping[str, Classifier],
        given: Mapping[float, Tensor],
        keep: dict[float, dict[int, Tensor]] | None,
        handed_over: bool,
        progress: Progress,
    ) -> None:
        self.evaluation, self.classifier, self.progress = evaluation, classifier, progress
        self.images, self.labels, self.handed_over = images, labels, handed_over
        self.attack = load_attack(evaluation.attack.name)
        self.sources, self.given, self.keep = sources, given, keep
        self.stages, self.left_out = self._stages(gradient_unconfirmed=False)
        if not self.stages:
            raise UsageError(f"{self.attack.name} needs other models to craft candidates on; name them as sources")
        if self.left_out:
            progress.say("no source to craft candidates on: the transfer stage is left out")
        missing = set(evaluation.threat_model.epsilons) - set(given)
        if missing and any(stage.definition.needs_candidates for stage in self.stages):
            raise UsageError(f"{self.attack.name} are made elsewhere: judge a file of them with odebench judge")

    def _stages(self, *, gradient_unconfirmed: bool) -> tuple[list[Stage], bool]:
        """The stages that there are sources for, and whether others are left out."""
        stages = self.attack.stages(
            self.evaluation.attack.parameters,
            norm=self.evaluation.threat_model.norm,
            n_classes=self.classifier.n_classes,
            gradient_unconfirmed=gradient_unconfirmed,
        )
        possible = [stage for stage in stages if self.sources or not stage.definition.needs_sources]
        return possible, len(possible) < len(stages)

    @property
    def passes(self) -> int:
        """How many gradients of one image the attack takes at most, at one epsilon."""
        return sum(stage.passes for stage in self.stages)

    def portion(self, dataset_sha256: str, weights_sha256: str, sources_sha256: Mapping[str, str]) -> Measurements:
        evaluation, classifier = self.evaluation, self.classifier
        groundwork, clean = self.groundwork, self.groundwork.clean
        self.judge = groundwork.judge(classifier)
        if groundwork.opaque:
            # Where the model draws random numbers a step costs twenty passes already, and differences drown in noise.
            steady = groundwork.passes == 1
            stages, _ = self._stages(gradient_unconfirmed=steady)
            restarts = steady and not isinstance(self.attack, DiagnosisDefinition)
            self.stages = [stage.doubled(restarts=restarts) for stage in stages]
        self.siege = StagedAttack(
            evaluation,
            self.stages,
            classifier,
            self.judge,
            self.images,
            self.labels,
            sources=list(self.sources.values()),
            given=self.given,
            carries_falls=self.attack.carries_over,
        )
        self._estimate()
        started = time.perf_counter()
        ledgers, examined = self._attack_all(clean)
        seconds = time.perf_counter() - started + groundwork.seconds
        answer = groundwork.opinion.answer
        return Measurements(
            ground=Setup(
                run_key=evaluation.run_key,
                found=Found(
                    dataset_sha256=dataset_sha256,
                    weights_sha256=weights_sha256,
                    sources_sha256=dict(sources_sha256),
                    parameters=classifier.parameters,
                    versions=versions(),
                    device=device_name(str(classifier.device)),
                    threads=torch.get_num_threads(),
                ),
                alone=self.judge.alone,
                randomised=self.judge.passes > 1,
                opaque=groundwork.opaque,
                left_out=self.left_out and self.handed_over,
                few_candidates=self._few_candidates(clean),
                legend=self.siege.legend,
                checks=(*groundwork.checks, *examined),
            ),
            first=self.first,
            clean=clean,
            logits=answer.logits,
            nfe=answer.nfe,
            useless=groundwork.useless,
            ledgers=tuple(ledgers),
            forward_images=self.siege.forward_images + self.judge.forward_images,
            backward_images=self.siege.backward_images,
            seconds=seconds,
        )

    def _estimate(self) -> None:
        """Says how long the attack may take, from the time that the gradients of one chunk took."""
        count = len(self.evaluation.threat_model.epsilons)
        steps = self.passes * count * len(chunks(self.evaluation, len(self.images)))
        self.progress.say(
            f"{self.attack.name} on {len(self.images)} images, {count} epsilon{'s' * (count > 1)}, {self.passes} "
            f"passes each: at most about {_duration(self.groundwork.slowest * steps)} on free cores"
        )

    def _few_candidates(self, clean: np.ndarray) -> bool:
        """Whether a file left out images that could be attacked: these are judged as they are, and stand."""
        could = torch.from_numpy(clean == "r")
        missing = [int((given == self.images).flatten(1).all(1)[could].sum()) for given in self.given.values()]
        if any(missing):
            self.progress.say(f"the file has no candidate for {max(missing)} of {int(could.sum())} images: they stand")
        return any(missing)

    def _attack_all(self, clean: np.ndarray) -> tuple[list[Outcomes], list[Check]]:
        """A ledger for each epsilon, and the checks that the attack makes by itself."""
        parts, epsilons = chunks(self.evaluation, len(self.images)), self.evaluation.threat_model.epsilons
        total = self.passes * len(parts) * len(epsilons)
        with self.progress.track(f"attacking with {self.attack.name}", total=total) as step:
            if isinstance(self.attack, DiagnosisDefinition):
                return Diagnosis(
                    self.evaluation,
                    self.attack,
                    self.siege,
                    self.judge,
                    self.images,
                    self.labels,
                    clean,
                    parts,
                    step,
                    doubled=self.groundwork.opaque,
                ).conduct()
            return self._besiege(clean, step), []

    def _besiege(self, clean: np.ndarray, step: Step) -> list[Outcomes]:
        epsilons = self.evaluation.threat_model.epsilons
        ledgers = [Outcomes.of(clean, keep=self.keep is not None) for _ in epsilons]
        for index, (epsilon, ledger) in enumerate(zip(epsilons, ledgers, strict=True)):
            if index and self.attack.carries_over:
                ledger.carry(ledgers[index - 1])
            for number, rows in enumerate(chunks(self.evaluation, len(self.images))):
                self.siege.attack_chunk(
                    number + (self.evaluation.dataset.offset + self.first) // self.evaluation.chunk,
                    rows[ledger.letters[rows] == "r"],
                    epsilon,
                    ledger,
                    step,
                )
            if self.keep is not None:
                self.keep[epsilon] = dict(ledger.judged or {})
        return ledgers


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "1 s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
