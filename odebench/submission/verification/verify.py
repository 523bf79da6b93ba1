"""Verifying an entry: whether its model is accepted, and whether some of its committed outcomes are found again."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from odebench.dataset import load_dataset
from odebench.errors import UsageError
from odebench.evaluation.environment import device_name, usable_device
from odebench.model.wall import granted_walls, missing, missing_walls
from odebench.progress import SILENT, Progress
from odebench.submission.entry import read_entry
from odebench.submission.finding import Finding, finding
from odebench.submission.limits import TIME_LIMIT
from odebench.submission.module_source import data_imports, foreign_names, revealing_imports
from odebench.submission.submitted_model import SubmittedModel
from odebench.submission.validate import Report, validate_entry
from odebench.submission.verification import sampling
from odebench.submission.verification.agreement import ComparedChunk
from odebench.submission.verification.committed_results import (
    can_be_repeated,
    claim_result_findings,
    committed_results,
    coverage_findings,
    planned_weights,
)
from odebench.submission.verification.jobs import Inspected, inspect
from odebench.submission.verification.rerun import Rerun
from odebench.submission.weights import fetching


@dataclass(frozen=True)
class Verification:
    """What verifying an entry found. `draw` is the seed of what was drawn; `chunks` holds the numbers of the chunks
    looked at, by data set (empty: all that are committed). Findings refuse the entry, notes do not."""

    folder: Path
    id: str
    draw: int
    chunks: dict[str, tuple[int, ...]]
    compared: tuple[ComparedChunk, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def letters(self) -> tuple[int, int]:
        """The number of outcomes compared, and the number of those that differ."""
        return sum(chunk.letters for chunk in self.compared), sum(chunk.differ for chunk in self.compared)

    def json(self) -> dict[str, Any]:
        """The verification as plain values, for JSON."""
        letters, differ = self.letters
        values = asdict(self) | {"path": str(self.folder), "ok": self.ok, "letters": letters, "differ": differ}
        values["cells"] = values["compared"]
        keys = ("path", "id", "ok", "draw", "chunks", "letters", "differ", "cells", "findings", "notes")
        return {key: values[key] for key in keys}


def verify_entry(
    folder: Path,
    *,
    results: Path,
    dataset: str | None = None,
    chunks: Sequence[int] | None = None,
    full: bool = False,
    draw: int | None = None,
    trust: bool,
    report: Report | None = None,
    time_limit: int = TIME_LIMIT,
    device: str = "cpu",
    data_dir: Path | None = None,
    progress: Progress = SILENT,
) -> Verification:
    """Validates an entry, asks its models, and compares their answers with its results below `results`.

    Looks at two chunks of test images drawn by the seed `draw` (None: a new seed), or at the given `chunks`, or with
    `full` at all that is committed; on all its data sets, or on `dataset` alone. `report` is the report of validating
    it, if there is one already. Code that the entry brings runs only with `trust`, in processes of its own, for at most
    `time_limit` seconds. Raises UsageError without `trust`, and for unknown chunks and data sets.
    """
    draw, device = secrets.randbits(32) if draw is None else draw, usable_device(device)
    if full and chunks is not None:
        raise UsageError("--full looks at all chunks that are committed: leave out --chunks")
    report = validate_entry(folder) if report is None else report
    if not report.findings:
        entry = read_entry(folder)
        code = SubmittedModel(folder, entry).code
        if code is not None and not trust:
            raise UsageError(f"{entry.id} runs {code}: read it, then give --trust")
        others = [use.name for use in entry.datasets if dataset not in (None, use.name)]
        entry = entry if dataset is None else entry.only(dataset)
        if report.weights_elsewhere:
            report = validate_entry(folder, fetch=fetching(progress, dataset=dataset, seconds=time_limit))
    if report.findings:
        return Verification(folder, report.id, draw, {}, (), report.findings, ("nothing was run",))
    data = {use.name: load_dataset(use.name, data_dir=data_dir, progress=progress) for use in entry.datasets}
    totals = {name: len(one.test) for name, one in data.items()}
    looked_at = {} if full else sampling.drawn_chunks(draw, totals)
    if chunks is not None:
        looked_at = sampling.given_chunks(chunks, totals)
    committed, findings = committed_results(folder, entry, results, data, dataset=dataset, data_dir=data_dir)
    findings += [*coverage_findings(folder, entry, committed, data, data_dir=data_dir)]
    findings += claim_result_findings(folder, entry, committed)
    chosen = sampling.all_results(committed) if full else sampling.drawn_results(draw, entry, committed)
    drawn = sampling.drawn_weights(draw, entry, chosen)
    without_results = [planned_weights(folder, entry, *each, data_dir=data_dir) for each in drawn]
    wanted = {name: looked_at.get(name) for name in totals}
    drawn_by = draw if chunks is None else None
    for each in findings:
        progress.say(f"refused, whatever its attacks find: {each}")
    run = Rerun(folder, entry, chosen, without_results, wanted, data, draw=drawn_by, data_dir=data_dir)
    if code is not None:
        progress.say(f"{entry.id}: its code runs in separate processes, silently, {time_limit} s at most")
    inspected = inspect(run.jobs(progress), data, device=device, time_limit=time_limit, progress=progress)
    if code is not None:
        findings += _said_of_code(folder, code, inspected)
    found = run.compare(inspected, device=device_name(device))
    skipped = sum(not can_be_repeated(each.evaluation) for each in committed)
    notes = [f"{dataset} alone was looked at, not {', '.join(others)}"] if others else []
    notes += [*_notes_of_code(code, inspected)] if code is not None else []
    every = len(sampling.all_results(committed))
    if len(chosen) < every:
        notes.append(f"{len(chosen)} of {every} results were run again, those of drawn train seeds; --full runs all")
    notes += [f"{skipped} results of candidates and diagnoses are read, not run again"] if skipped else []
    return Verification(
        folder, entry.id, draw, looked_at, found.chunks, (*findings, *found.findings), (*notes, *found.notes)
    )


def _said_of_code(folder: Path, code: Path, inspected: Sequence[Inspected]) -> Iterator[Finding]:
    """What was found about the code of an entry: what it was refused, and answers that are not those of its model."""
    for each in dict.fromkeys(breach for one in inspected for breach in one.breaches):
        said = f"refused {each.what}; a model computes logits from images, and does nothing else"
        yield finding(str(folder), None, "guard", f"{each.where or 'its code'}: {said}")
    for lie in dict.fromkeys(lie for one in inspected for lie in one.lies):
        yield finding(str(code), None, lie.rule, lie.said)


def _notes_of_code(code: Path, inspected: Sequence[Inspected]) -> Iterator[str]:
    """What readers should know of how the code of an entry was run, and of what it imports."""
    if without := missing(granted_walls()):
        yield missing_walls(without)
    if points := [one.integrated for one in inspected if one.integrated is not None]:
        yield (
            "NFE, failures and solver are as the entry says; its field, integrated outside, was compared on "
            f"{sum(points)} points"
        )
    yield from revealing_imports(code)
    yield from data_imports(code)
    yield from foreign_names(code.parent)
