"""Running an evaluation: attack in chunks, one verdict for every candidate, checks, a standard result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.definition import load_attack
from odebench.attack.seed import call_seed
from odebench.attack.surface import Surface
from odebench.ball import ROUNDING, distance
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
from odebench.errors import AttackError, ModelError, OdebenchError
from odebench.ledger import Ledger, ever_failed
from odebench.model.classifier import Classifier
from odebench.progress import SILENT, Progress, Step
from odebench.registry import load_target
from odebench.result import (
    FALLEN,
    Check,
    Cost,
    Found,
    Nfe,
    Result,
    felled_letters,
    outcomes_digest,
)
from odebench.spec import Evaluation
from odebench.summary import flags_of, nfe_summary
from odebench.verdict import Judge, Verdict

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
    progress: Progress = SILENT,
) -> Result:
    """Runs one evaluation on the images of its slice, in order, and returns its result.

    Raises ModelError for a model that is randomised, raises, or returns something else than logits, and
    AttackError for an attack that raises: neither is ever counted as robustness.
    """
    with classifier.frozen():
        return _Run(evaluation, classifier, images, labels, progress).result(dataset_sha256, weights_sha256)


class _Run:
    """One evaluation under way."""

    def __init__(
        self,
        evaluation: Evaluation,
        classifier: Classifier,
        images: Images,
        labels: Labels,
        progress: Progress,
    ) -> None:
        self.evaluation, self.classifier, self.progress = evaluation, classifier, progress
        self.images, self.labels = images, labels
        self.attack = load_attack(evaluation.attack.name)
        self.legend = felled_letters([evaluation.attack.name])
        self.surface = Surface(classifier)

    def result(self, dataset_sha256: str, weights_sha256: str) -> Result:
        evaluation, classifier = self.evaluation, self.classifier
        probes = self._probe()
        alone = self._alone(probes)
        self.judge = Judge(classifier, alone=alone)
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
            ledger.epsilon_result(epsilon, self.legend)
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
                sources_sha256={},
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
                forward=(self.surface.forward_images + self.judge.forward_images) / n,
                backward=self.surface.backward_images / n,
                seconds=seconds,
            ),
            checks=tuple(checks),
            flags=flags_of(checks, alone=alone),
            outcomes_sha256=outcomes_digest(epsilons),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

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
        passes = max(1, self.attack.gradients(self.evaluation.attack.parameters))
        steps = passes * len(self.evaluation.threat_model.epsilons) * len(list(self._chunks()))
        self.progress.say(
            f"{self.attack.name} on {len(self.images)} images, {len(self.evaluation.threat_model.epsilons)} epsilons, "
            f"{passes} gradients each: at most about {_duration(slowest * steps)}"
        )
        return gradient_availability(k, int((clean == "r").sum()))

    def _chunks(self) -> list[np.ndarray]:
        size = self.evaluation.chunk
        return [np.arange(first, min(first + size, len(self.images))) for first in range(0, len(self.images), size)]

    def _attack_all(self, clean: np.ndarray) -> list[Ledger]:
        chunks, epsilons = self._chunks(), self.evaluation.threat_model.epsilons
        passes = max(1, self.attack.gradients(self.evaluation.attack.parameters))
        ledgers = [Ledger.of(clean) for _ in epsilons]
        with self.progress.track(
            f"attacking with {self.attack.name}", total=passes * len(chunks) * len(epsilons)
        ) as step:
            for epsilon, ledger in zip(epsilons, ledgers, strict=True):
                for number, rows in enumerate(chunks):
                    done = self._attack_chunk(number, rows[clean[rows] == "r"], epsilon, ledger, step, passes)
                    step.advance(passes - done, note=f"epsilon {epsilon:g}: {ledger.standing} standing")
        return ledgers

    def _attack_chunk(
        self, number: int, rows: np.ndarray, epsilon: float, ledger: Ledger, step: Step, passes: int
    ) -> int:
        """Attacks the clean-correct images `rows` of one chunk; returns how many passes it reported."""
        if not len(rows):
            return 0
        evaluation, norm = self.evaluation, self.evaluation.threat_model.norm
        images, labels = self.images[rows], self.labels[rows]
        standing = torch.ones(len(rows), dtype=torch.bool)
        letter = next(iter(self.legend))

        def judge(local: Tensor, candidates: Tensor) -> Verdict:
            return self.judge.candidates(
                images[local],
                labels[local],
                candidates,
                norm=norm,
                epsilon=epsilon,
                fixed_budget=self.attack.fixed_budget,
            )

        def fallen(local: Tensor, candidates: Tensor) -> Tensor:
            local, here = local.cpu(), candidates.detach().cpu().float()
            if not len(local):
                return torch.zeros(0, dtype=torch.bool, device=candidates.device)
            verdict = judge(local, here)
            down = torch.from_numpy(np.isin(verdict.letters, list(FALLEN)))
            ledger.enter(rows[local[down].numpy()], verdict.only(down), letter)
            standing[local[down]] = False
            return down.to(candidates.device)

        reported = 0

        def count(*_: object) -> None:
            nonlocal reported
            if reported < passes:
                reported += 1
                step.advance()

        hook = self.surface.register_forward_hook(count)
        self.surface.failures.clear()
        chunk = evaluation.dataset.offset // evaluation.chunk + number
        try:
            candidates = self._candidates(images, labels, epsilon, chunk, fallen)
        finally:
            hook.remove()
        left = standing.nonzero().flatten()
        if len(left):
            verdict = judge(left, candidates[left])
            ledger.enter(rows[left.numpy()], verdict, letter)
            standing[left] = torch.from_numpy(verdict.letters == "r")
        self._judge_failures(images, standing, norm, epsilon, fallen)
        return reported

    def _judge_failures(
        self,
        images: Tensor,
        standing: Tensor,
        norm: str,
        epsilon: float,
        fallen: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Every input at which the model failed is a candidate for each standing image within whose budget it is."""
        for point in self.surface.failures:
            rows = standing.nonzero().flatten()
            here = point.cpu()[None].expand(len(rows), *point.shape)
            near = distance(images[rows], here, norm=norm) <= epsilon + ROUNDING
            if near.any():
                fallen(rows[near], here[near])

    def _candidates(
        self,
        images: Tensor,
        labels: Tensor,
        epsilon: float,
        chunk: int,
        fallen: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        spec, device = self.evaluation.attack, self.classifier.device
        try:
            attack = load_target(self.attack.function)
            # Copies: the verdict measures from the clean images, which an attack must not move.
            found = attack(
                self.surface,
                images.to(device, copy=True),
                labels.to(device, copy=True),
                norm=self.evaluation.threat_model.norm,
                epsilon=epsilon,
                seed=call_seed(spec.seed, chunk=chunk, stage=spec.name, epsilon=epsilon),
                fallen=fallen,
                **spec.parameters,
            )
        except (OdebenchError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            line = str(error).strip().split("\n")[0]
            raise AttackError(f"the attack {spec.name} raised {type(error).__name__}: {line}") from error
        if not isinstance(found, Tensor) or found.shape != images.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise AttackError(f"the attack {spec.name} returned {shape} for images of shape {tuple(images.shape)}")
        return found.detach().cpu().float()


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "1 s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
