"""What a verification asks of an entry's models: the acceptance checks, and the outcomes of some chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from odebench.dataset import Dataset
from odebench.errors import OdebenchError
from odebench.evaluation.checks.answers import Lie, false_gradients, integrated_outside
from odebench.evaluation.checks.memory import memorised_images
from odebench.evaluation.checks.rule import skipped
from odebench.evaluation.evaluate import data_split
from odebench.evaluation.examination import Examination
from odebench.evaluation.execution import measure
from odebench.evaluation.fresh_start import start_of_plan
from odebench.evaluation.loading import LoadedModels, load_models
from odebench.evaluation.measurements import Measurements
from odebench.evaluation.plan import Plan
from odebench.evaluation.preflight import ALL
from odebench.evaluation.verdict import Judge
from odebench.io.text import printable
from odebench.model.audit_hook import Breach
from odebench.model.classifier import Classifier
from odebench.model.process_channel import TimeBudget
from odebench.model.process_classifier import ProcessClassifier
from odebench.numerics.precision import full_fp32
from odebench.progress import SILENT, Progress, Step
from odebench.result.outcome import CheckId, Flag
from odebench.result.schema import Check
from odebench.submission.limits import TIME_LIMIT


@dataclass(frozen=True)
class RepeatedAttack:
    """An evaluation to repeat on some rows of its images, with the number of threads that it ran with."""

    plan: Plan
    rows: tuple[slice, ...]
    threads: int


@dataclass(frozen=True)
class Job:
    """What to ask of the weights of one data set, train horizon and seed: a quick diagnosis, and attacks to repeat."""

    diagnosis: Plan
    attacks: tuple[RepeatedAttack, ...]


@dataclass(frozen=True)
class ChunkOutcomes:
    """The outcomes of an attack on rows `first` to `last`, one text per epsilon, and the sha256 of the sources used."""

    first: int
    last: int
    outcomes: tuple[str, ...]
    sources_sha256: dict[str, str]


@dataclass(frozen=True)
class Inspected:
    """The answers to one job. `error` says why the model could not be asked: there are no checks if that was so from
    the beginning, and no outcomes if it was so during the attacks.

    `changes_in_eval` says how the model changed in evaluation mode, `breaches` what an entry's code was refused, both
    as its process says. `lies` are what was found about answers of an entry's code, and `integrated` says on how many
    points its field was integrated outside. `outcomes` are in the order of the attacks and their rows.
    """

    error: str | None = None
    checks: tuple[Check, ...] = ()
    flags: tuple[str, ...] = ()
    changes_in_eval: str | None = None
    breaches: tuple[Breach, ...] = ()
    lies: tuple[Lie, ...] = ()
    integrated: int | None = None
    outcomes: tuple[ChunkOutcomes, ...] = ()


def inspect(
    jobs: Sequence[Job],
    data: Mapping[str, Dataset],
    *,
    device: str = "cpu",
    time_limit: int = TIME_LIMIT,
    progress: Progress = SILENT,
) -> list[Inspected]:
    """The answers to the jobs, in order, on the data sets in `data` by name. An error of a model is said in `error`.

    The code of an entry runs in processes of its own, for `time_limit` seconds in all.
    """
    budget = TimeBudget(time_limit)
    found = []
    total = sum(len(attack.rows) for job in jobs for attack in job.attacks) + len(jobs)
    with progress.track("verifying", total=total) as step:
        for job in jobs:
            try:
                found.append(_inspected(job, data[job.diagnosis.evaluation.dataset.name], device, step, budget))
            except OdebenchError as error:
                found.append(Inspected(error=_line(error)))
    return found


def _line(error: OdebenchError) -> str:
    return printable(" ".join(str(error).split()))


class Within:
    """Progress of what is done within a step: its notes tell how far it is."""

    def __init__(self, step: Step) -> None:
        self._step = step

    @contextmanager
    def track(self, name: str, *, total: float, done: float = 0) -> Iterator[Step]:
        yield _Part(self._step, name, total, done)

    def say(self, line: str) -> None:
        pass


@dataclass
class _Part:
    step: Step
    name: str
    total: float
    done: float

    def __post_init__(self) -> None:
        self.advance(0)

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        self.done += amount
        share = f" {min(1.0, self.done / self.total):.0%}" if self.total else ""
        self.step.advance(0, note=f"{self.name}{share}")


def _inspected(job: Job, data: Dataset, device: str, step: Step, budget: TimeBudget) -> Inspected:
    progress = Within(step)
    with load_models(job.diagnosis, data, device, progress, budget=budget) as model:
        classifier = model.classifier
        evaluation, lies = job.diagnosis.evaluation, list[Lie]()
        breaches: tuple[Breach, ...] = ()
        integrated = None
        if isinstance(classifier, ProcessClassifier):
            split = data_split(data, evaluation.dataset.split)
            points = split.part(slice(evaluation.dataset.offset, evaluation.dataset.offset + evaluation.dataset.n))
            lies += integrated_outside(classifier, points.images).lies  # said even where all else takes too long
        else:
            before = _state(classifier.module.eval())
        started = replace(model, start=start_of_plan(job.diagnosis, model))
        try:
            result = _measure(job.diagnosis, started, data, progress).result(evaluation)
            checks = (*result.checks, _memory(classifier, data, randomised=Flag.RANDOMISED in result.flags))
        except OdebenchError as error:
            if isinstance(classifier, ProcessClassifier):
                with suppress(OdebenchError):  # a process that was stopped says nothing more
                    breaches = classifier.process.report().breaches
            return Inspected(error=_line(error), breaches=breaches, lies=tuple(lies))
        step.advance()
        if isinstance(classifier, ProcessClassifier):
            lies += false_gradients(classifier)
            found = integrated_outside(classifier, points.images)
            lies, integrated = [*lies, *(lie for lie in found.lies if lie not in lies)], found.points
            report = classifier.process.report()
            changes, breaches = report.changed, report.breaches
        else:
            changes = _changes(classifier, before)
    outcomes: list[ChunkOutcomes] = []
    failed = None
    try:
        for attack in job.attacks:
            examinations: dict[str, Examination] = {}
            with _threads(attack.threads), load_models(attack.plan, data, device, progress, budget=budget) as asked:
                for rows in attack.rows:
                    measured = _measure(attack.plan, asked, data, progress, rows, examinations)
                    step.advance()
                    outcomes.append(
                        ChunkOutcomes(
                            first=rows.start,
                            last=rows.stop,
                            outcomes=tuple("".join(at_epsilon.letters) for at_epsilon in measured.outcomes),
                            sources_sha256=dict(asked.sources_sha256),
                        )
                    )
                if isinstance(asked.classifier, ProcessClassifier):
                    lies += false_gradients(asked.classifier)
                    breaches += asked.classifier.process.report().breaches
    except OdebenchError as error:  # what was found before is said all the same
        failed, outcomes = _line(error), []
    return Inspected(
        error=failed,
        checks=checks,
        flags=result.flags,
        changes_in_eval=changes,
        breaches=tuple(dict.fromkeys(breaches)),
        lies=tuple(lies),
        integrated=integrated,
        outcomes=tuple(outcomes),
    )


def _memory(classifier: Classifier, data: Dataset, *, randomised: bool) -> Check:
    """Check 22 of a model, which no result holds: an evaluation sees one split."""
    if randomised:
        return skipped(CheckId.MEMORISED_IMAGES, speaks_of="model", why="the model draws random numbers")
    coupled = classifier.solver is not None and classifier.solver.couples_batch
    with classifier.frozen(), full_fp32():
        return memorised_images(Judge(classifier, alone=coupled), data.test, data.validation, train=data.train)


def _changes(classifier: Classifier, before: dict[str, Tensor]) -> str | None:
    """How a module has changed while it was asked; None if it has not."""
    module = classifier.module
    if training := [name or type(module).__name__ for name, part in module.named_modules() if part.training]:
        return f"{', '.join(training[:3])} stays in training mode after eval()"
    if classifier.changed or not _equal(_state(module), before):
        return "its parameters or buffers change during evaluation"
    return None


def _measure(
    plan: Plan,
    models: LoadedModels,
    data: Dataset,
    progress: Progress,
    rows: slice = ALL,
    examinations: dict[str, Examination] | None = None,
) -> Measurements:
    evaluation = plan.evaluation
    split = data_split(data, evaluation.dataset.split)
    return measure(evaluation, models, split, rows=rows, examinations=examinations, progress=progress)


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, also of those that weights files leave out."""
    return {name: one.detach().clone() for name, one in (*module.named_parameters(), *module.named_buffers())}


def _equal(now: dict[str, Tensor], before: dict[str, Tensor]) -> bool:
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """A context in which torch uses `count` threads: outcomes are reproducible for equal threads only."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
