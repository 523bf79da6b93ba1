"""What a verification asks of an entry's models: the acceptance checks, and the outcomes of some chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from odebench.dataset import Dataset
from odebench.errors import OdebenchError
from odebench.evaluation.evaluate import data_split
from odebench.evaluation.examination import Examination
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import LoadedModels, load_models
from odebench.evaluation.measurements import Measurements
from odebench.evaluation.plan import Plan
from odebench.evaluation.preflight import ALL
from odebench.io.text import printable
from odebench.progress import SILENT, Progress
from odebench.protocol.spec import Sha256, Spec
from odebench.result.schema import Check


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


class ChunkOutcomes(Spec):
    """The outcomes of an attack on rows `first` to `last`, one text per epsilon, and the sha256 of the sources used."""

    first: int
    last: int
    outcomes: Annotated[tuple[str, ...], Field(strict=False)]
    sources_sha256: dict[str, Sha256]


class Inspected(Spec):
    """The answers to one job, empty but for `error` if the model could not be asked. `changes_in_eval` says how the
    model changed in evaluation mode; `outcomes` are in the order of the attacks and their rows."""

    error: str | None = None
    checks: Annotated[tuple[Check, ...], Field(strict=False)] = ()
    flags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    changes_in_eval: str | None = None
    outcomes: Annotated[tuple[ChunkOutcomes, ...], Field(strict=False)] = ()


def inspect(
    jobs: Sequence[Job], data: Mapping[str, Dataset], *, device: str = "cpu", progress: Progress = SILENT
) -> list[Inspected]:
    """The answers to the jobs, in order, on the data sets in `data` by name. An error of a model is said in `error`."""
    found = []
    total = sum(len(attack.rows) for job in jobs for attack in job.attacks) + len(jobs)
    with progress.track("verifying", total=total) as step:
        for job in jobs:
            try:
                found.append(_inspected(job, data[job.diagnosis.evaluation.dataset.name], device, step.advance))
            except OdebenchError as error:
                found.append(Inspected(error=printable(" ".join(str(error).split()))))
    return found


def _inspected(job: Job, data: Dataset, device: str, advance: Callable[[], None]) -> Inspected:
    model = load_models(job.diagnosis, data, device, SILENT)
    module = model.classifier.module.eval()
    before = _state(module)
    result = _measure(job.diagnosis, model, data).result(job.diagnosis.evaluation)
    checks = result.checks
    advance()
    changes = None
    if training := [name or type(module).__name__ for name, part in module.named_modules() if part.training]:
        changes = f"{', '.join(training[:3])} stays in training mode after eval()"
    elif model.classifier.changed or not _equal(_state(module), before):
        changes = "its parameters or buffers change while it is asked"
    outcomes: list[ChunkOutcomes] = []
    for attack in job.attacks:
        examinations: dict[str, Examination] = {}
        with _threads(attack.threads):
            asked = load_models(attack.plan, data, device, SILENT)
            for rows in attack.rows:
                found = _measure(attack.plan, asked, data, rows, examinations)
                advance()
                outcomes.append(
                    ChunkOutcomes(
                        first=rows.start,
                        last=rows.stop,
                        outcomes=tuple("".join(at_epsilon.letters) for at_epsilon in found.outcomes),
                        sources_sha256=dict(asked.sources_sha256),
                    )
                )
    return Inspected(checks=checks, flags=result.flags, changes_in_eval=changes, outcomes=tuple(outcomes))


def _measure(
    plan: Plan,
    models: LoadedModels,
    data: Dataset,
    rows: slice = ALL,
    examinations: dict[str, Examination] | None = None,
) -> Measurements:
    evaluation = plan.evaluation
    split = data_split(data, evaluation.dataset.split)
    return measure(evaluation, models, split, rows=rows, examinations=examinations)


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
