"""Running an evaluation: attack in chunks, one verdict for every candidate, checks, a standard result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.definition import load_attack
from odebench.check.model import (
    batch_independence,
    determinism,
    gradient_availability,
    logits_not_probabilities,
    solver_failure,
    useless_gradients,
)
from odebench.check.setting import reach
from odebench.environment import device_name, versions
from odebench.errors import ModelError, UsageError
from odebench.ledger import Ledger, ever_failed
from odebench.model.classifier import Classifier
from odebench.progress import SILENT, Progress
from odebench.result import (
    Check,
    Cost,
    Found,
    Nfe,
    Result,
    outcomes_digest,
)
from odebench.siege import Siege
from odebench.spec import Evaluation
from odebench.summary import flags_of, nfe_summary
from odebench.verdict import Judge

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
    expects_sources: bool = True,
    progress: Progress = SILENT,
) -> Result:
    """Runs one evaluation on the images of its slice, in order, and returns its result.

    `sources` are the models that transfer crafts candidates on; `given` are candidates made elsewhere, by epsilon,
    one for each image of the slice. `keep`, if handed over, is filled with the last candidate judged for each image
    that was attacked, by epsilon and position in the slice. Where `expects_sources`, a stage that is left out for want
    of them is flagged.

    Raises ModelError for a model that is randomised, raises, or returns something else than logits, and
    AttackError for an attack that raises: neither is ever counted as robustness.
    """
    with ExitStack() as frozen:
        for one in [classifier, *(sources or {}).values()]:
            frozen.enter_context(one.frozen())
        run = _Run(evaluation, classifier, images, labels, sources or {}, given or {}, keep, progress)
        return run.result(
            dataset_sha256, weights_sha256, sources_sha256 or {}, flag_left_out=run.left_out and expects_sources
        )


class _Run:
    """One evaluation under way."""

    def __init__(
        self,
        evaluation: Evaluation,
        classifier: Classifier,
        images: Images,
        labels: Labels,
        sources: Mapping[str, Classifier],
        given: Mapping[float, Tensor],
        keep: dict[float, dict[int, Tensor]] | None,
        progress: Progress,
    ) -> None:
        self.evaluation, self.classifier, self.progress = evaluation, classifier, progress
        self.images, self.labels = images, labels
        self.attack = load_attack(evaluation.attack.name)
        self.sources, self.given, self.keep = sources, given, keep
        stages = self.attack.stages(
            evaluation.attack.parameters, norm=evaluation.threat_model.norm, n_classes=classifier.n_classes
        )
        self.stages = [stage for stage in stages if sources or not stage.definition.needs_sources]
        if not self.stages:
            raise UsageError(f"{self.attack.name} needs other models to craft candidates on; name them as sources")
        self.left_out = len(self.stages) < len(stages)
        if self.left_out:
            progress.say("no source to craft candidates on: the transfer stage is left out")
        missing = set(evaluation.threat_model.epsilons) - set(given)
        if missing and any(stage.definition.needs_candidates for stage in self.stages):
            raise UsageError(f"{self.attack.name} are made elsewhere: judge a file of them with odebench judge")
        self.passes = sum(stage.passes for stage in self.stages)

    def result(
        self, dataset_sha256: str, weights_sha256: str, sources_sha256: Mapping[str, str], *, flag_left_out: bool
    ) -> Result:
        evaluation, classifier = self.evaluation, self.classifier
        probes = self._probe()
        alone = self._alone(probes)
        self.judge = Judge(classifier, alone=alone)
        self.siege = Siege(
            evaluation,
            self.stages,
            classifier,
            self.judge,
            self.images,
            self.labels,
            sources=list(self.sources.values()),
            given=self.given,
            carries_falls=self.attack.carries_falls,
        )
        started = time.perf_counter()
        answer = self.judge.answer(self.images)
        clean = self.judge.clean_letters(answer, self.labels)
        probes.append(logits_not_probabilities(answer.logits))
        probes.append(self._gradient_check(clean))
        ledgers = self._attack_all(clean)
        seconds = time.perf_counter() - started
        failing = solver_failure(ever_failed(ledgers))
        checks = [*probes, reach(self.attack, evaluation.attack.parameters), failing]
        checks.sort(key=lambda check: check.id)
        epsilons = tuple(
            ledger.epsilon_result(epsilon, self.siege.legend)
            for epsilon, ledger in zip(evaluation.threat_model.epsilons, ledgers, strict=True)
        )
        n = len(self.images)
        return Result(
            schema_version=1,
            run_key=evaluation.run_key,
            evaluation=evaluation,
            found=Found(
                dataset_sha256=dataset_sha256,
                weights_sha256=weights_sha256,
                sources_sha256=dict(sources_sha256),
                parameters=classifier.parameters,
                versions=versions(),
                device=device_name(str(classifier.device)),
                threads=torch.get_num_threads(),
            ),
            epsilons=epsilons,
            nfe=Nfe(
                clean=nfe_summary([] if answer.nfe is None else answer.nfe.tolist()),
                adversarial=nfe_summary([count for ledger in ledgers for count in ledger.nfe]),
            ),
            cost=Cost(
                forward=(self.siege.forward_images + self.judge.forward_images) / n,
                backward=self.siege.backward_images / n,
                seconds=seconds,
            ),
            checks=tuple(checks),
            flags=flags_of(checks, alone=alone, left_out=flag_left_out, few_candidates=self._few_candidates(clean)),
            outcomes_sha256=outcomes_digest(epsilons),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def _few_candidates(self, clean: np.ndarray) -> bool:
        """Whether a file left out images that could be attacked: these are judged as they are, and stand."""
        could = torch.from_numpy(clean == "r")
        missing = [int((given == self.images).flatten(1).all(1)[could].sum()) for given in self.given.values()]
        if any(missing):
            self.progress.say(f"the file has no candidate for {max(missing)} of {int(could.sum())} images: they stand")
        return any(missing)

    def _probe(self) -> list[Check]:
        """Checks 2 and 15 on the first chunk: they decide how the verdict asks the model."""
        first = slice(0, self.evaluation.chunk)
        images, labels = self.images[first], self.labels[first]
        threat = self.evaluation.threat_model
        middle = threat.epsilons[len(threat.epsilons) // 2]
        coupled = self.classifier.solver is not None and self.classifier.solver.couples_batch
        steady = determinism(self.classifier, images, alone=coupled)
        if steady.status == "flag":
            raise ModelError(
                f"{self.evaluation.model.name} is randomised: the same images gave logits that differ by "
                f"{steady.figure:.1%} and {steady.evidence['labels_changed']} other labels; its figures would be "
                "luck. Fix its noise by a seed, or call eval(), and evaluate again"
            )
        return [steady, batch_independence(self.classifier, images, labels, norm=threat.norm, epsilon=middle)]

    def _alone(self, probes: Sequence[Check]) -> bool:
        solver = self.classifier.solver
        coupled = solver is not None and solver.couples_batch
        return coupled or any(check.id == 15 and check.status == "flag" for check in probes)

    def _gradient_check(self, clean: np.ndarray) -> Check:
        """Check 1 over all clean-correct images; its time for one chunk is the estimate of the attack's."""
        k, slowest = 0, 0.0
        for rows in self._chunks():
            standing = rows[clean[rows] == "r"]
            if len(standing):
                started = time.perf_counter()
                k += useless_gradients(self.classifier, self.images[standing], self.labels[standing])
                slowest = time.perf_counter() - started
        steps = self.passes * len(self.evaluation.threat_model.epsilons) * len(list(self._chunks()))
        self.progress.say(
            f"{self.attack.name} on {len(self.images)} images, {len(self.evaluation.threat_model.epsilons)} epsilons, "
            f"{self.passes} passes each: at most about {_duration(slowest * steps)}"
        )
        return gradient_availability(k, int((clean == "r").sum()))

    def _chunks(self) -> list[np.ndarray]:
        size = self.evaluation.chunk
        return [np.arange(first, min(first + size, len(self.images))) for first in range(0, len(self.images), size)]

    def _attack_all(self, clean: np.ndarray) -> list[Ledger]:
        chunks, epsilons = self._chunks(), self.evaluation.threat_model.epsilons
        ledgers = [Ledger.of(clean, keep=self.keep is not None) for _ in epsilons]
        total = self.passes * len(chunks) * len(epsilons)
        with self.progress.track(f"attacking with {self.attack.name}", total=total) as step:
            for index, (epsilon, ledger) in enumerate(zip(epsilons, ledgers, strict=True)):
                if index and self.attack.carries_falls:
                    ledger.carry(ledgers[index - 1])
                for number, rows in enumerate(chunks):
                    self.siege.attack_chunk(
                        number + self.evaluation.dataset.offset // self.evaluation.chunk,
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
