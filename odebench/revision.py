"""Results as they stood in a commit of a git repository."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from odebench.errors import ResultError
from odebench.io.git import commit_of, contents, files_in
from odebench.leaderboard import read_results
from odebench.result.file import is_result_name, parse_result, read_result
from odebench.union import StoredResult


def results_of(name: str, *, folder: Path) -> tuple[list[StoredResult], list[ResultError]]:
    """The results that a name stands for, and the problems: a file, a folder, or a commit, of which `folder` is read.

    Raises ResultError for a name that is none of these, and for a commit without results.
    """
    path = Path(name)
    if path.is_dir():
        return read_results([path])
    if path.is_file():
        return [StoredResult(path, read_result(path))], []
    commit = commit_of(name)
    if commit is None:
        raise ResultError(
            f"{name} is neither a result file, a folder of results nor a commit of this repository; "
            f"name two of these, such as results/a.json, results, or main~5 (whose {folder.as_posix()} is read)"
        )
    stored, problems = results_in(commit, folder, name=name)
    if not stored and not problems:
        raise ResultError(f"the commit {name} has no results in {folder.as_posix()}; name another commit, or a folder")
    return stored, problems


def results_in(commit: str, folder: Path, *, name: str) -> tuple[list[StoredResult], list[ResultError]]:
    """The results in a folder of a commit, which their paths call `name`, and the problems."""
    blobs = [blob for blob in files_in(commit, folder.as_posix()) if is_result_name(PurePosixPath(blob.path).name)]
    stored: list[StoredResult] = []
    problems: list[ResultError] = []
    for blob, data in contents(blobs):
        where = Path(f"{name}:{blob.path}")
        try:
            stored.append(StoredResult(where, parse_result(data.decode(errors="replace"), where)))
        except ResultError as error:
            problems.append(error)
    return stored, problems
