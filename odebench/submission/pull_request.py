"""A pull request to the leaderboard: what it changes, whose files these are, and whether its results are whole.

Nothing of it is run, and no link is followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from odebench.attack.definition import load_attack
from odebench.attack.registry import ATTACKS
from odebench.errors import OdebenchError, ResultError, UsageError
from odebench.io.files import sha256_file
from odebench.io.folders import LEADERBOARD
from odebench.io.git import FileChange, Span, can_be_written, changes, files_in, span_of, write_files
from odebench.leaderboard.union import StoredResult
from odebench.model.registry import MODELS
from odebench.result.file import is_result_name, read_result, result_path
from odebench.result.schema import Result
from odebench.submission.entry import ENTRY_FILE, looks_like
from odebench.submission.finding import Finding, finding

BOARD = LEADERBOARD.path.as_posix()
ENTRIES, RESULTS, WEIGHTS = (
    folder.as_posix() for folder in (LEADERBOARD.entries, LEADERBOARD.results, LEADERBOARD.weights)
)
MAX_RESULT_BYTES = 2_000_000
MAX_FILE_BYTES, MAX_CHANGED_BYTES = 20_000_000, 1_000_000_000
"""Larger files are not looked at, nor pull requests that bring more."""
_MAINTAINER = "; leave it unchanged, or have a maintainer give --maintainer"


@dataclass(frozen=True)
class PullRequest:
    """What HEAD changes since it left BASE. `before` holds the ids of the entries and of the models with results that
    BASE has, now or when HEAD left it; `after` the ids of the entries that HEAD has; `sizes` the bytes of HEAD's plain
    files below leaderboard by path, without those whose paths cannot be written."""

    span: Span
    entries: tuple[FileChange, ...]
    results: tuple[FileChange, ...]
    weights: tuple[FileChange, ...]
    outside: tuple[FileChange, ...]
    before: frozenset[str]
    after: frozenset[str]
    sizes: Mapping[str, int]

    @property
    def models(self) -> tuple[str, ...]:
        """The ids of all entries and models with changed files, sorted."""
        return tuple(sorted({model_of(change.path) for change in [*self.entries, *self.results]}))

    def is_new(self, model: str) -> bool:
        """Whether this pull request brings the model: an entry with a name that was free."""
        return model in self.after and model not in self.before and model not in MODELS.entries()

    def is_there(self, change: FileChange) -> bool:
        """Whether `write_board` writes a changed file."""
        return change.plain and self.sizes.get(change.path, MAX_FILE_BYTES + 1) <= MAX_FILE_BYTES


def read_pull_request(base: str) -> PullRequest:
    """What HEAD changes since it left BASE. Raises UsageError if git cannot tell, or if it is too much to look at."""
    span = span_of(base)
    changed = list(changes(span.fork, span.head))
    folders = (f"{ENTRIES}/", f"{RESULTS}/", f"{WEIGHTS}/")
    entries, results, weights = (
        tuple(change for change in changed if change.path.startswith(folder)) for folder in folders
    )
    sizes = {blob.path: blob.size for blob in files_in(span.head, ENTRIES, RESULTS, WEIGHTS)}
    if (total := sum(sizes.get(change.path, 0) for change in changed)) > MAX_CHANGED_BYTES:
        said = f"HEAD brings {total:,} bytes below {BOARD}, more than the {MAX_CHANGED_BYTES:,} that are looked at"
        raise UsageError(f"{said}; publish weights elsewhere, and give their url")
    before = {name for commit in (span.base, span.fork) for name in _names(commit, ENTRIES) | _names(commit, RESULTS)}
    return PullRequest(
        span=span,
        entries=entries,
        results=results,
        weights=weights,
        outside=tuple(change for change in changed if not change.path.startswith(folders)),
        before=frozenset(before),
        after=frozenset(_names(span.head, ENTRIES)),
        sizes=sizes,
    )


def _names(commit: str, folder: str) -> set[str]:
    """The names of the subfolders with files of a folder of a commit."""
    return {model_of(blob.path) for blob in files_in(commit, folder) if blob.path.count("/") > 2}


def model_of(path: str) -> str:
    """The model that a path below ENTRIES or RESULTS belongs to: leaderboard/entries/<model>/..."""
    return path.split("/")[2]


def write_board(pull_request: PullRequest, folder: Path) -> None:
    """Writes HEAD's entries and weights, and the changed models' results, to `folder`, byte for byte."""
    results = [f"{RESULTS}/{model}" for model in pull_request.models if can_be_written(model)]
    write_files(pull_request.span.head, folder, ENTRIES, WEIGHTS, *results, most=MAX_FILE_BYTES)
    for model in pull_request.after:  # all of its files may be too large
        (folder / ENTRIES / model).mkdir(parents=True, exist_ok=True)


def unwritten(pull_request: PullRequest) -> Iterator[Finding]:
    """Findings about changed files that `write_board` leaves out: too large, or with paths that cannot be written."""
    for change in [*pull_request.entries, *pull_request.results, *pull_request.weights]:
        if change.kind == "deleted" or not change.plain or pull_request.is_there(change):
            continue
        size = pull_request.sizes.get(change.path)
        if size is None:
            yield finding(change.path, None, "file", "is a path that cannot be written everywhere; rename it")
        else:
            said = f"has {size:,} bytes, more than any file below {BOARD} may have; publish it elsewhere"
            yield finding(change.path, None, "size", said)


def ownership(pull_request: PullRequest) -> Iterator[Finding]:
    """Findings about changed files of others: entries and models of BASE, published results and weights."""
    for change in pull_request.entries:
        if not pull_request.is_new(model := model_of(change.path)):
            said = f"is {change.kind}, and {_whose(pull_request, model)}{_MAINTAINER}"
            yield finding(change.path, None, "ownership", said)
    published = ((pull_request.results, "results that are there stay as they are"),)
    for changed, why in (*published, (pull_request.weights, "published results rest on it")):
        for change in changed:
            if change.kind != "added":
                yield finding(change.path, None, "ownership", f"is {change.kind}, and {why}{_MAINTAINER}")


def look_alikes(pull_request: PullRequest) -> Iterator[Finding]:
    """Findings about new entries whose ids look like those of others, old or new."""
    for model in sorted(pull_request.after - pull_request.before):
        if (other := looks_like(model, {*pull_request.before, *pull_request.after})) is not None:
            said = f"the id {model!r} looks like {other!r}, which is another's; choose another"
            yield finding(f"{ENTRIES}/{model}/{ENTRY_FILE}", None, "id", said)


def _whose(pull_request: PullRequest, model: str) -> str:
    if model in MODELS.entries():
        return f"{model} is the name of a registered model"
    if model in pull_request.before:
        return f"{model} is there already"
    return f"there is no entry {model}"


def links(pull_request: PullRequest) -> Iterator[Finding]:
    """Findings about links and submodules below leaderboard, which may lead anywhere."""
    below = [*pull_request.entries, *pull_request.results, *pull_request.weights]
    for change in [*below, *pull_request.outside]:
        if change.path.startswith(f"{BOARD}/") and not change.plain:
            yield finding(change.path, None, "link", "is a link, which may lead anywhere; put the file itself here")


def new_weights(pull_request: PullRequest, board: Path) -> Iterator[Finding]:
    """Findings about added weights not named by their sha256: under a recipe's key they would replace its training."""
    for change in pull_request.weights:
        if change.kind == "added" and pull_request.is_there(change):
            sha256 = sha256_file(board / change.path)
            if Path(change.path).name != f"{sha256}.safetensors":
                said = f"is not named by its sha256; name it {sha256}.safetensors, or put it into the entry's folder"
                yield finding(change.path, None, "weights", said)


def new_results(
    pull_request: PullRequest, board: Path, *, maintainer: bool
) -> tuple[list[StoredResult], list[Finding]]:
    """The added or changed results, read from what `write_board` wrote to `board`, and findings about those that are
    unreadable, misplaced, or of others' models. Anybody may add results of candidates that were made elsewhere."""
    stored: list[StoredResult] = []
    findings: list[Finding] = []
    for change in pull_request.results:
        path = change.path
        if change.kind == "deleted" or not pull_request.is_there(change):
            continue
        own = maintainer or pull_request.is_new(model_of(path))
        size = (board / path).stat().st_size
        if size > MAX_RESULT_BYTES:
            said = f"has {size:,} bytes, more than the {MAX_RESULT_BYTES:,} that such a file may have; delete it"
            findings.append(finding(path, None, "size", said))
        elif not is_result_name(Path(path).name):
            if not own or not _is_example(path):
                said = "is neither a result (odebench run) nor an example of one (odebench examples); delete it"
                findings.append(finding(path, None, "file", said))
        else:
            try:
                result = read_result(board / path)
            except ResultError as error:
                said = str(error).replace(f"{board / path}", "it", 1)
                findings.append(
                    finding(path, None, "result", f"{said}; results are written by odebench, never by hand")
                )
                continue
            if (broken := _misplaced(pull_request, change, result, own=own)) is None:
                stored.append(StoredResult(Path(path), result))
            else:
                findings.append(finding(path, None, *broken))
    return stored, findings


def _misplaced(pull_request: PullRequest, change: FileChange, result: Result, *, own: bool) -> tuple[str, str] | None:
    """The rule that a readable result breaks, and what to do; None if it breaks none."""
    model, belongs = result.evaluation.model.name, result_path(Path(RESULTS), result.evaluation).as_posix()
    if change.path != belongs:
        return "result", f"is a result of {model}, whose place is {belongs}; put it there"
    if model not in pull_request.after and model not in MODELS.entries():
        return "result", f"is a result of {model}, which is no entry here; odebench new-entry {model} writes one"
    if not own and change.kind == "added" and not is_given(result):
        said = f"is added, and {_whose(pull_request, model)}; candidates that fool it are welcome (odebench judge), "
        return "ownership", f"{said}other results of it come from a maintainer, with --maintainer"
    return None


def is_given(result: Result) -> bool:
    """Whether a result is of candidates that were made elsewhere."""
    name = result.evaluation.attack.name
    try:
        return name in ATTACKS.entries() and load_attack(name).needs_candidates
    except OdebenchError:
        return False


def _is_example(path: str) -> bool:
    """Whether a path is <model>/<data set>-examples-<run key>/<file>, as odebench examples writes them."""
    parts = path.removeprefix(f"{RESULTS}/").split("/")
    return len(parts) == 3 and "-examples-" in parts[1] and Path(parts[2]).suffix in (".png", ".json")
