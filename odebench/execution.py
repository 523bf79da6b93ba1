"""Running an evaluation: attack in chunks, one verdict for every candidate, checks, a standard result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timezone

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.definition import load_attack
from odebench.attack.seed import seeded
from odebench.check.gradient import gradient_fidelity
from odebench.check.model import (
    batch_independence,
    determinism,
    gradient_availability,
    logits_not_probabilities,
    solver_failure,
    useless_gradients,
)
from odebench.check.rule import skipped
from odebench.check.setting import reach
from odebench.environment import device_name, versions
from odebench.errors import UsageError
from odebench.examination import Examination
from odebench.ledger import Ledger, ever_failed
from odebench.model.classifier import Classifier
from odebench.progress import SILENT, Progress, Step
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
from odebench.verdict import RANDOMISED_PASSES, Judge

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
    progress: Progress = SILENT,
) -> Result:
    """Runs one evaluation on the images of its slice, in order, and returns its result.

    `sources` are the models that transfer crafts candidates on; `given` are candidates made elsewhere, by epsilon,
    one for each image of the slice. `keep`, if handed over, is filled with the last candidate judged for each image
    that was attacked, by epsilon and position in the slice. Of a module that was `handed_over` nothing is known: check
    17 looks at its gradient first, and a stage that is left out for want of sources is flagged.

    Raises ModelError for a model that raises or returns something else than logits, and AttackError for an attack that
    raises: neither is ever counted as robustness.
    """
    with ExitStack() as frozen:
        for one in [classifier, *(sources or {}).values()]:
            frozen.enter_context(one.frozen())
        run = _Run(evaluation, classifier, images, labels, sources or {}, given or {}, keep, handed_over, progress)
        return run.result(dataset_sha256, weights_sha256, sources_sha256 or {})


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
        handed_over: bool,
        progress: Progress,
    ) -> None:
        self.evaluation, self.classifier, self.progress = evaluation, classifier, progress
        self.images, self.labels, self.handed_over = images, labels, handed_over
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

    @property
    def passes(self) -> int:
        """How many gradients of one image the attack takes at most, at one epsilon."""
        return sum(stage.passes for stage in self.stages)

    def result(self, dataset_sha256: str, weights_sha256: str, sources_sha256: Mapping[str, str]) -> Result:
        evaluation, classifier = self.evaluation, self.classifier
        self.judge, probes = self._judge()
        started = time.perf_counter()
        opinion = self.judge.opinion(self.images, self.labels, of=self.images)
        clean = opinion.letters(wrong="m", failed="u")
        probes.append(logits_not_probabilities(opinion.answer.logits))
        fidelity = self._gradient_fidelity(clean)
        self.opaque = fidelity is not None and fidelity.status != "pass"
        if self.opaque:
            self.stages = [stage.doubled() for stage in self.stages]
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
        probes.append(self._gradient_check(clean))
        ledgers, examined = self._attack_all(clean)
        seconds = time.perf_counter() - started
        found = [*probes, *examined, reach(self.attack, evaluation.attack.parameters)]
        found += [] if fidelity is None or 17 in self.attack.examines else [fidelity]
        checks = sorted([*found, solver_failure(ever_failed(ledgers))], key=lambda check: check.id)
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
                clean=nfe_summary([] if opinion.answer.nfe is None else opinion.answer.nfe.tolist()),
                adversarial=nfe_summary([count for ledger in ledgers for count in ledger.nfe]),
            ),
            cost=Cost(
                forward=(self.siege.forward_images + self.judge.forward_images) / n,
                backward=self.siege.backward_images / n,
                seconds=seconds,
            ),
            checks=tuple(checks),
            flags=flags_of(
                checks,
                alone=self.judge.alone,
                randomised=self.judge.passes > 1,
                opaque=self.opaque,
                left_out=self.left_out and self.handed_over,
                few_candidates=self._few_candidates(clean),
            ),
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

    def _judge(self) -> tuple[Judge, list[Check]]:
        """Checks 2 and 15 on the first chunk, and the judge that they ask for: in batches, alone, or over passes."""
        first = slice(0, self.evaluation.chunk)
        images, labels = self.images[first], self.labels[first]
        threat, seed = self.evaluation.threat_model, self.evaluation.attack.seed
        middle = threat.epsilons[len(threat.epsilons) // 2]
        coupled = self.classifier.solver is not None and self.classifier.solver.couples_batch
        steady = determinism(self.classifier, images, alone=coupled)
        if steady.status == "flag":
            self.progress.say(
                f"{self.evaluation.model.name} is randomised (logits differ by {steady.figure:.1%} between passes): "
                f"every letter is taken over {RANDOMISED_PASSES} passes, every gradient averaged over as many"
            )
            why = "a randomised model is asked about one image at a time"
            independence = skipped(15, "batch independence", speaks_of="model", why=why)
            return Judge(self.classifier, passes=RANDOMISED_PASSES, seed=seed), [steady, independence]
        independence = batch_independence(self.classifier, images, labels, norm=threat.norm, epsilon=middle)
        return Judge(self.classifier, alone=coupled or independence.status == "flag"), [steady, independence]

    def _gradient_fidelity(self, clean: np.ndarray) -> Check | None:
        """Check 17 on the first chunk of a module of which nothing is known; None where it was built here."""
        if not self.handed_over:
            return None
        rows = np.flatnonzero(clean[: self.evaluation.chunk] == "r")
        if self.judge.passes > 1:
            why = "the model draws random numbers: its gradient is another one at every pass"
            return skipped(17, "gradient fidelity", speaks_of="model", why=why)
        return gradient_fidelity(self.classifier, self.images[torch.from_numpy(rows)])

    def _gradient_check(self, clean: np.ndarray) -> Check:
        """Check 1 over all clean-correct images; its time for one chunk is the estimate of the attack's."""
        k, slowest = 0, 0.0
        for rows in self._chunks():
            standing = rows[clean[rows] == "r"]
            if len(standing):
                started = time.perf_counter()
                with seeded(self.evaluation.attack.seed):
                    k += useless_gradients(self.classifier, self.images[standing], self.labels[standing])
                slowest = (time.perf_counter() - started) * self.judge.passes
        steps = self.passes * len(self.evaluation.threat_model.epsilons) * len(list(self._chunks()))
        count = len(self.evaluation.threat_model.epsilons)
        self.progress.say(
            f"{self.attack.name} on {len(self.images)} images, {count} epsilon{'s' * (count > 1)}, {self.passes} "
            f"passes each: at most about {_duration(slowest * steps)}"
        )
        return gradient_availability(k, int((clean == "r").sum()))

    def _chunks(self) -> list[np.ndarray]:
        size = self.evaluation.chunk
        return [np.arange(first, min(first + size, len(self.images))) for first in range(0, len(self.images), size)]

    def _attack_all(self, clean: np.ndarray) -> tuple[list[Ledger], list[Check]]:
        """A ledger for each epsilon, and the checks that the attack makes by itself."""
        chunks, epsilons = self._chunks(), self.evaluation.threat_model.epsilons
        total = self.passes * len(chunks) * len(epsilons)
        with self.progress.track(f"attacking with {self.attack.name}", total=total) as step:
            if self.attack.examines:
                return Examination(
                    self.evaluation,
                    self.attack,
                    self.siege,
                    self.judge,
                    self.images,
                    self.labels,
                    clean,
                    chunks,
                    step,
                    doubled=self.opaque,
                ).conduct()
            return self._besiege(clean, step), []

    def _besiege(self, clean: np.ndarray, step: Step) -> list[Ledger]:
        epsilons = self.evaluation.threat_model.epsilons
        ledgers = [Ledger.of(clean, keep=self.keep is not None) for _ in epsilons]
        for index, (epsilon, ledger) in enumerate(zip(epsilons, ledgers, strict=True)):
            if index and self.attack.carries_falls:
                ledger.carry(ledgers[index - 1])
            for number, rows in enumerate(self._chunks()):
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
