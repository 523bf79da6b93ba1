"""Verifying an entry: its model is admitted or not, and some of its committed letters are found again."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from odebench.dataset import Dataset, load_dataset
from odebench.errors import ModelError, UsageError
from odebench.evaluation.environment import device_name, usable_device
from odebench.progress import SILENT, Progress
from odebench.submission.entry import TIME_LIMIT, read_entry
from odebench.submission.finding import Finding, finding
from odebench.submission.submitted_model import SubmittedModel
from odebench.submission.validate import Report, validate_entry
from odebench.submission.verification.agreement import ComparedChunk
from odebench.submission.verification.committed_results import (
    Images,
    can_be_repeated,
    claimed,
    committed_results,
    planned_weights,
    uncovered,
)
from odebench.submission.verification.inspection import Inspected, inspect
from odebench.submission.verification.isolated_process import inspect_in_subprocess
from odebench.submission.verification.rerun import Rerun
from odebench.submission.verification.sampling import (
    all_results,
    drawn_chunks,
    drawn_results,
    drawn_weights,
    given_chunks,
)
from odebench.submission.weights import fetching


@dataclass(frozen=True)
class Verification:
    """What verifying an entry found. `draw` is the seed of what was drawn, `chunks` those looked at, by data set (none:
    all that are committed). It is good where there are no findings; notes are no reason to refuse."""

    folder: Path
    id: str
    draw: int
    chunks: dict[str, tuple[int, ...]]
    cells: tuple[ComparedChunk, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the entry."""
        return not self.findings

    @property
    def letters(self) -> tuple[int, int]:
        """How many letters were compared, and how many differ."""
        return sum(cell.letters for cell in self.cells), sum(cell.differ for cell in self.cells)

    def json(self) -> dict[str, JsonValue]:
        """The verification as plain values."""
        compared, differ = self.letters
        return {
            "path": str(self.folder),
            "id": self.id,
            "ok": self.ok,
            "draw": self.draw,
            "chunks": {name: list(numbers) for name, numbers in self.chunks.items()},
            "letters": compared,
            "differ": differ,
            "cells": [cell.json() for cell in self.cells],
            "findings": [each.json() for each in self.findings],
            "notes": list(self.notes),
        }


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
    """Validates an entry, asks its models, and compares what they say with its results below `results`.

    Looks at two chunks of the test images that `draw` draws (None: a seed of its own), or at those given, or with
    `full` at all that is committed; of all its data sets, or of `dataset` alone. `report` is what validating it found,
    where that was done just before. Code that the entry brings runs, in a process of its own, only with `trust`, and no
    longer than `time_limit` seconds. Raises UsageError without it, and for chunks and data sets that there are not.
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
            report = validate_entry(folder, fetch=fetching(progress, dataset=dataset))
    if report.findings:
        return Verification(folder, report.id, draw, {}, (), report.findings, ("nothing was run",))
    data = {use.name: load_dataset(use.name, data_dir=data_dir, progress=progress) for use in entry.datasets}
    totals = {name: len(one.test) for name, one in data.items()}
    looked_at = given_chunks(chunks, totals) if chunks is not None else {} if full else drawn_chunks(draw, totals)
    splits = {(name, split): images for name, one in data.items() for split, images in _splits(one)}
    committed, findings = committed_results(folder, entry, results, splits, dataset=dataset, data_dir=data_dir)
    findings += [*uncovered(folder, entry, committed, splits, data_dir=data_dir)]
    findings += claimed(folder, entry, committed)
    chosen = all_results(committed) if full else drawn_results(draw, entry, committed)
    silent = [planned_weights(folder, entry, *each, data_dir=data_dir) for each in drawn_weights(draw, entry, chosen)]
    wanted = {name: looked_at.get(name) for name in totals}
    drawn_by = draw if chunks is None else None
    run = Rerun(folder, entry, chosen, silent, wanted, data, draw=drawn_by, data_dir=data_dir)
    if code is None:
        inspected = inspect(run.jobs(progress), data, device=device, progress=progress)
    else:
        progress.say(f"{entry.id}: its code runs in a process of its own, silently, {time_limit} s at most")
        try:
            answer = inspect_in_subprocess(
                folder, run.jobs(progress, sources=True), device=device, data_dir=data_dir, time_limit=time_limit
            )
            inspected = list(answer.inspected)
            findings += [
                finding(str(folder), None, "guard", _breach(each.what, each.where)) for each in answer.breaches
            ]
        except ModelError as error:
            inspected = [Inspected(error="it was not asked to the end")] * len(run.groups)
            findings.append(finding(str(code), None, "model", str(error)))
    found = run.compare(inspected, device=device_name(device))
    skipped = sum(not can_be_repeated(each.evaluation) for each in committed)
    notes = [f"{dataset} alone was looked at, not {', '.join(others)}"] if others else []
    notes += [f"{skipped} results of candidates and diagnoses are read, not run again"] if skipped else []
    return Verification(
        folder, entry.id, draw, looked_at, found.cells, (*findings, *found.findings), (*notes, *found.notes)
    )


def _splits(data: Dataset) -> Iterator[tuple[str, Images]]:
    yield "test", Images(len(data.test), data.test.sha256)
    if data.validation is not None:
        yield "validation", Images(len(data.validation), data.validation.sha256)


def _breach(what: str, where: str) -> str:
    return f"{where or 'its code'}: refused {what}; a model computes logits from images, and does nothing else"
