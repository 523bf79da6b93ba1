"""Asking an entry's models what a verification wants to know: the admission checks, and the letters of some chunks."""

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
from odebench.evaluation.checks.gradient import FIDELITY_IMAGES, gradient_fidelity
from odebench.evaluation.evaluate import data_split
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import LoadedModels, load_models
from odebench.evaluation.measurements import Measurements
from odebench.evaluation.plan import Plan
from odebench.evaluation.preflight import ALL
from odebench.io.text import printable
from odebench.progress import SILENT, Progress
from odebench.protocol.spec import Evaluation, Sha256, Spec
from odebench.result.outcome import CheckId
from odebench.result.schema import Check, Result


@dataclass(frozen=True)
class Attack:
    """Letters that are wanted: those of an evaluation on some rows of its images, found with so many threads."""

    evaluation: Evaluation
    rows: tuple[slice, ...]
    threads: int


@dataclass(frozen=True)
class Job:
    """All that is wanted of the weights of one data set, train horizon and seed: the plan of a quick diagnosis, and
    attacks on the same weights, each planned, too."""

    admission: Plan
    attacks: tuple[tuple[Plan, Attack], ...]


class ChunkOutcomes(Spec):
    """The outcomes of an attack on rows `first` to `last`, a text for each epsilon, and the sources that were used."""

    first: int
    last: int
    outcomes: Annotated[tuple[str, ...], Field(strict=False)]
    sources_sha256: dict[str, Sha256]


class Inspected(Spec):
    """What was found about the weights of one job. `error`: why the model could not be asked, then the rest is empty.
    `restless`: what a model did in evaluation mode that only a training may do. `letters` are in the order of the
    attacks and their rows."""

    error: str | None = None
    checks: Annotated[tuple[Check, ...], Field(strict=False)] = ()
    flags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    restless: str | None = None
    letters: Annotated[tuple[ChunkOutcomes, ...], Field(strict=False)] = ()


def inspect(
    jobs: Sequence[Job], data: Mapping[str, Dataset], *, device: str = "cpu", progress: Progress = SILENT
) -> list[Inspected]:
    """What the models of jobs answer on `data`, in order. Whatever a model does wrong is said in its `error`."""
    found = []
    total = sum(len(attack.rows) for job in jobs for _, attack in job.attacks) + len(jobs)
    with progress.track("verifying", total=total) as step:
        for job in jobs:
            try:
                found.append(_inspected(job, data[job.admission.evaluation.dataset.name], device, step.advance))
            except OdebenchError as error:
                found.append(Inspected(error=printable(" ".join(str(error).split()))))
    return found


def _inspected(job: Job, data: Dataset, device: str, advance: Callable[[], None]) -> Inspected:
    model = load_models(job.admission, data, device, SILENT)
    module = model.classifier.module.eval()
    before = _state(module)
    result = _measure(job.admission, model, data).result(job.admission.evaluation)
    checks = (*result.checks, *_beside(job.admission, model, data, result))
    advance()
    restless = None
    if awake := [name or type(module).__name__ for name, part in module.named_modules() if part.training]:
        restless = f"{', '.join(awake[:3])} stays in training mode after eval()"
    elif not _equal(_state(module), before):
        restless = "its parameters or buffers change while it is asked"
    letters: list[ChunkOutcomes] = []
    for plan, attack in job.attacks:
        with _threads(attack.threads):
            asked = load_models(plan, data, device, SILENT)
            for rows in attack.rows:
                found = _measure(plan, asked, data, rows)
                advance()
                letters.append(
                    ChunkOutcomes(
                        first=rows.start,
                        last=rows.stop,
                        outcomes=tuple("".join(outcomes.letters) for outcomes in found.outcomes),
                        sources_sha256=dict(asked.sources_sha256),
                    )
                )
    return Inspected(checks=checks, flags=result.flags, restless=restless, letters=tuple(letters))


def _measure(plan: Plan, models: LoadedModels, data: Dataset, rows: slice = ALL) -> Measurements:
    evaluation = plan.evaluation
    return measure(evaluation, models, data_split(data, evaluation.dataset.split), rows=rows)


def _beside(plan: Plan, model: LoadedModels, data: Dataset, result: Result) -> Iterator[Check]:
    """Check 17 once more beside the clean images, at points of the ball, if it flags there alone: attacks ask for
    gradients everywhere, and a model may know clean images by their grey levels."""
    if not any(check.id == CheckId.GRADIENT_FIDELITY and check.status == "pass" for check in result.checks):
        return
    part, radius = plan.evaluation.dataset, max(plan.evaluation.threat_model.epsilons)
    images = data_split(data, part.split).images[part.offset : part.offset + FIDELITY_IMAGES]
    noise = 2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(plan.evaluation.attack.seed)) - 1
    found = gradient_fidelity(model.classifier, (images + radius * noise).clamp(0, 1))
    if found.status == "flag":
        yield found.model_copy(update={"name": f"{found.name} beside the images"})


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, those that are in no weights file, too."""
    return {name: one.detach().clone() for name, one in (*module.named_parameters(), *module.named_buffers())}


def _equal(now: dict[str, Tensor], before: dict[str, Tensor]) -> bool:
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads while inside: equal letters are promised for equal threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
