"""The review of a pull request to the leaderboard: whose files it changes, and its entries validated and verified."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odebench.errors import OdebenchError, UsageError
from odebench.io.scratch import scratch_folder
from odebench.io.text import printable
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.credit import can_be_judged_anew
from odebench.leaderboard.read import results_in
from odebench.leaderboard.table import Table
from odebench.leaderboard.union import StoredResult
from odebench.model.registry import MODELS
from odebench.model.wall import SECRETS, granted_walls, missing, missing_walls
from odebench.progress import SILENT, Progress
from odebench.submission import pull_request as pulls
from odebench.submission.entry import ENTRY_FILE, ID, read_entry
from odebench.submission.finding import Finding, finding
from odebench.submission.limits import TIME_LIMIT
from odebench.submission.pull_request import PullRequest
from odebench.submission.submitted_model import SubmittedModel, find_model, reference_of
from odebench.submission.validate import Report, validate_entry

if TYPE_CHECKING:
    from odebench.submission.verification.verify import Verification

_BASE = "BASE"


@dataclass(frozen=True)
class Reviewed:
    """One entry of a pull request: what validating and verifying it found; `why_not` says why it was not run."""

    report: Report
    verification: Verification | None
    why_not: str | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.report.folder.name

    def json(self) -> dict[str, Any]:
        """The entry as plain values, for JSON."""
        return {
            "id": self.id,
            "ok": not self.findings,
            "findings": [asdict(each) for each in self.findings],
            "verification": None if self.verification is None else self.verification.json(),
            "not_run": self.why_not,
        }


@dataclass(frozen=True)
class Review:
    """What was found about a pull request: `draw` is the seed that drew chunks and results, `findings` are those about
    no single entry, `added` its results, `notes` refuse nothing, `tables` show its models beside the registered."""

    pull_request: PullRequest
    draw: int
    entries: tuple[Reviewed, ...]
    findings: tuple[Finding, ...]
    added: tuple[StoredResult, ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """All findings, also those about single entries."""
        return (*self.findings, *(each for entry in self.entries for each in entry.findings))

    def json(self) -> dict[str, Any]:
        """The review as plain values, for JSON."""
        return {
            "ok": not self.all_findings,
            **asdict(self.pull_request.span),
            "draw": self.draw,
            "entries": [each.json() for each in self.entries],
            "results": [str(item.path) for item in self.added],
            "weights": [change.path for change in self.pull_request.weights],
            "outside": [change.path for change in self.pull_request.outside],
            "findings": [asdict(each) for each in self.findings],
            "notes": self.notes,
        }


def review(
    base: str,
    *,
    trust: bool,
    maintainer: bool = False,
    draw: int | None = None,
    time_limit: int = TIME_LIMIT,
    unwalled: bool = False,
    device: str = "cpu",
    data_dir: Path | None = None,
    progress: Progress = SILENT,
) -> Review:
    """The review of HEAD, as committed, as a pull request to `base`.

    An entry is run only if nothing else is wrong with it; code that it brings runs only with `trust`, for at most
    `time_limit` seconds, and where this system cannot keep secrets from it only if it may be `unwalled`. `draw` is the
    seed of a review to repeat. A `maintainer` may change files of others. Raises UsageError if there is nothing to
    review.
    """
    pull_request = pulls.read_pull_request(base)
    span = pull_request.span
    if not pull_request.models and not pull_request.weights and not pull_request.outside:
        said = f"HEAD ({span.head[:12]}) changes nothing since it left {base} ({span.fork[:12]})"
        raise UsageError(f"{said}; commit your entry, or go to its branch")
    chosen = secrets.randbits(32) if draw is None else draw
    findings = [
        *pulls.links(pull_request),
        *pulls.unwritten(pull_request),
        *pulls.look_alikes(pull_request),
        *([] if maintainer else pulls.ownership(pull_request)),
    ]
    with scratch_folder("review") as folder:
        pulls.write_board(pull_request, folder)
        if not maintainer:
            findings += pulls.new_weights(pull_request, folder)
        added, wrong = pulls.new_results(pull_request, folder, maintainer=maintainer)
        findings += wrong
        tables, contradicting = _tables(pull_request, added)
        findings += contradicting

        def verify(entry: Path, report: Report) -> Verification:
            from odebench.submission.verification.verify import verify_entry

            progress.say(f"{entry.name}: verifying on two chunks (--draw {chosen} repeats it)")
            return verify_entry(
                entry,
                results=folder / pulls.RESULTS,
                draw=chosen,
                trust=trust,
                report=report,
                time_limit=time_limit,
                **where,
            )

        where: dict[str, Any] = {"device": device, "data_dir": data_dir, "progress": progress}
        entries = []
        for model in _entries(pull_request, added):
            places = (f"{pulls.ENTRIES}/{model}/", f"{pulls.RESULTS}/{model}/")
            own = [each for each in findings if each.file.startswith(places)]
            findings = [each for each in findings if each not in own]
            entries.append(_reviewed(folder, model, own, trust=trust, unwalled=unwalled, verify=verify))
        runs = trust and (unwalled or SECRETS in granted_walls())
        anew = _judged_anew(folder, added, findings, runs=runs, draw=chosen, time_limit=time_limit, **where)
        findings += _from_root(anew, folder)
    return Review(
        pull_request=pull_request,
        draw=chosen,
        entries=tuple(entries),
        findings=tuple(findings),
        added=tuple(added),
        notes=(*_notes(added), *(note for each in entries for note in each.notes)),
        tables=tuple(tables),
    )


def _entries(pull_request: PullRequest, added: Sequence[StoredResult]) -> list[str]:
    """The entries of HEAD to review: those with changed files, and those with new results that can be repeated."""
    found = {pulls.model_of(change.path) for change in pull_request.entries}
    found |= {item.result.evaluation.model.name for item in added if not pulls.is_given(item.result)}
    return sorted(found & pull_request.after)


def _reviewed(
    folder: Path,
    model: str,
    findings: Sequence[Finding],
    *,
    trust: bool,
    unwalled: bool,
    verify: Callable[[Path, Report], Verification],
) -> Reviewed:
    """One entry, validated, and verified if nothing is wrong so far."""
    entry = folder / pulls.ENTRIES / model
    report = validate_entry(entry)
    found = [*findings, *_from_root(report.findings, folder)]
    if found:
        return Reviewed(report, None, "fix the findings first", tuple(found))
    contributed = read_entry(entry).contributed
    if contributed is not None and not trust:
        file = f"{pulls.ENTRIES}/{model}/{contributed[0]}.py"
        said = "is what running the entry would run here, with all that you may do: read it, then give --trust"
        return Reviewed(report, None, "its code is not trusted", (finding(file, None, "trust", said),))
    if contributed is not None and not unwalled and SECRETS in (without := missing(granted_walls())):
        file = f"{pulls.ENTRIES}/{model}/{contributed[0]}.py"
        said = f"was not run. {missing_walls(without)}; let it have a machine without secrets, and give --unwalled"
        return Reviewed(report, None, "this machine cannot keep secrets from it", (finding(file, None, "wall", said),))
    try:
        verification = verify(entry, report)
    except OdebenchError as error:
        broken = finding(str(entry / ENTRY_FILE), None, "run", f"cannot be verified: {error}")
        return Reviewed(report, None, "it could not be", tuple(_from_root([broken], folder)))
    below = f"{folder}/"
    verification = replace(
        verification,
        folder=Path(pulls.ENTRIES, model),
        compared=tuple(replace(one, result=one.result.replace(below, "")) for one in verification.compared),
        findings=tuple(_from_root(verification.findings, folder)),
        notes=tuple(printable(note.replace(below, "")) for note in verification.notes),
    )
    notes = tuple(f"{model}: {note}" for note in verification.notes)
    return Reviewed(report, verification, None, verification.findings, notes)


def _from_root(findings: Iterable[Finding], folder: Path) -> list[Finding]:
    """Findings with the paths of the repository, for findings about files below `folder`."""
    below = f"{folder}/"
    return [
        finding(each.file.replace(below, ""), each.line, each.rule, each.message.replace(below, ""))
        for each in findings
    ]


def _tables(pull_request: PullRequest, added: Sequence[StoredResult]) -> tuple[list[Table], list[Finding]]:
    """Tables of its models beside the registered ones, and findings about new results that contradict others."""
    base, _ = results_in(pull_request.span.base, Path(pulls.RESULTS), name=_BASE)
    replaced = {Path(f"{_BASE}:{change.path}") for change in pull_request.results}
    tables, problems = build_tables([*(item for item in base if item.path not in replaced), *added])
    contradicting = [
        finding(str(item.path), None, "result", f"is at odds with another result: {problem}")
        for problem in problems
        for item in added
        if str(item.path) in str(problem)
    ]
    models = {model for model in pull_request.models if ID.fullmatch(model)}
    return [_beside(table, models) for table in tables if any(row.model in models for row in table.rows)], contradicting


def _beside(table: Table, models: set[str]) -> Table:
    """A table with the rows of some models and the usual rows of the registered ones."""
    usual = [row for row in table.usual if row.model in MODELS.entries()]
    rows = [row for row in table.rows if row.model in models or any(row is one for one in usual)]
    return replace(table, rows=tuple(rows))


def _judged_anew(
    folder: Path, added: Sequence[StoredResult], findings: Sequence[Finding], *, runs: bool, **options: Any
) -> Iterator[Finding]:
    """Findings about new results of candidates that have an address, and nothing else wrong with them."""
    bad = {each.file for each in findings}
    for item in added:
        if not pulls.is_given(item.result) or not can_be_judged_anew(item) or str(item.path) in bad:
            continue
        from odebench.submission.verification.candidates import judged_anew

        entry = folder / pulls.ENTRIES / item.evaluation.model.name
        try:
            if (entry / ENTRY_FILE).is_file():
                model = reference_of(entry, read_entry(entry))
            else:
                model = find_model(item.evaluation.model.name)
            code = isinstance(model, SubmittedModel) and model.code is not None
            if code and not runs:
                continue  # its entry's code is not run; a note says what is left to do
            yield from judged_anew(item, model, **options)
        except OdebenchError as error:
            yield finding(str(item.path), None, "candidates", f"cannot be judged again: {error}")


def _notes(added: Sequence[StoredResult]) -> Iterator[str]:
    """Notes on results of candidates made elsewhere."""
    for item in added:
        if pulls.is_given(item.result):
            model, sha256 = item.result.evaluation.model.name, item.result.evaluation.attack.parameters["file_sha256"]
            if can_be_judged_anew(item):
                said = f"{item.path} judges candidates made elsewhere: their file is fetched and judged again"
            else:
                said = (
                    f"{item.path} judges candidates made elsewhere and has no address of their file (sha256 {sha256}): "
                    f"it lowers no figure; ask for an address, or judge it again: odebench judge --model {model} FILE"
                )
            yield printable(said)
