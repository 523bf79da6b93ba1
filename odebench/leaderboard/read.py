"""Reading results: from folders, from single files, and from a commit of a git repository."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from odebench.errors import ResultError
from odebench.io.git import commit_of, contents, files_in
from odebench.leaderboard.grouping import group
from odebench.leaderboard.union import StoredResult
from odebench.result.file import MAX_BYTES, is_result_name, parse_result, read_result, result_files
from odebench.result.schema import Result


def read_results(
    folders: Sequence[Path], *, keep: Callable[[Result], Result] = lambda result: result
) -> tuple[list[StoredResult], list[ResultError]]:
    """All results below `folders`, or what `keep` keeps of each, and the problems: files that are not results.

    An evaluation found twice with the same letters counts once. With different letters it is a problem, and both stay,
    so that the worse letter counts in their union. Raises ResultError for a folder that does not exist.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ResultError(
                f"{folder} is not a folder of results; `odebench run` writes results to ./results, "
                "and `odebench leaderboard FOLDER` reads them from elsewhere"
            )
    kept: dict[tuple[str, tuple[str, ...]], StoredResult] = {}
    problems: list[ResultError] = []
    with _no_garbage_collection():
        for path in dict.fromkeys(path for folder in folders for path in result_files(folder)):
            try:
                result = read_result(path)
            except ResultError as error:
                problems.append(error)
                continue
            kept.setdefault((result.run_key, result.letters), StoredResult(path, keep(result)))
    for same in group(kept.values(), lambda item: item.result.run_key).values():
        problems += [
            ResultError(
                f"{same[0].path} and {other.path} hold the same evaluation with different letters; "
                "in each image the lower letter counts, until one of the files is deleted"
            )
            for other in same[1:]
        ]
    return list(kept.values()), problems


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Results hold no circles of references; to look for some takes a fifth of the time of reading thousands."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def results_of(name: str, *, folder: Path) -> tuple[list[StoredResult], list[ResultError]]:
    """The results of a file, a folder, or a commit (of which `folder` is read), and the problems. Raises ResultError
    for a name that is none of these, and for a commit without results."""
    path = Path(name)
    if path.is_dir():
        return read_results([path])
    if path.is_file():
        return [StoredResult(path, read_result(path))], []
    commit = commit_of(name)
    if commit is None:
        raise ResultError(
            f"{name} is neither a result file, a folder of results nor a commit of this repository; "
            f"name two of these, such as results/a.json, results, or main~5 (whose {folder.as_posix()} is read); "
            "or two models, such as kd-ode ode"
        )
    stored, problems = results_in(commit, folder, name=name)
    if not stored and not problems:
        raise ResultError(f"the commit {name} has no results in {folder.as_posix()}; name another commit, or a folder")
    return stored, problems


def results_in(commit: str, folder: Path, *, name: str) -> tuple[list[StoredResult], list[ResultError]]:
    """The results in a folder of a commit, with `name` in their paths, and the problems."""
    blobs = [blob for blob in files_in(commit, folder.as_posix()) if is_result_name(PurePosixPath(blob.path).name)]
    stored: list[StoredResult] = []
    large = [Path(f"{name}:{blob.path}") for blob in blobs if blob.size > MAX_BYTES]
    problems = [ResultError(f"{where} is not a result: larger than {MAX_BYTES / 1e6:g} MB") for where in large]
    for blob, data in contents([blob for blob in blobs if blob.size <= MAX_BYTES]):
        where = Path(f"{name}:{blob.path}")
        try:
            stored.append(StoredResult(where, parse_result(data.decode(errors="replace"), where)))
        except ResultError as error:
            problems.append(error)
    return stored, problems
