"""Results as they stood in a commit of a git repository."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from odebench.errors import ResultError
from odebench.leaderboard import read_results
from odebench.result import is_result_name, parse_result, read_result
from odebench.union import StoredResult


def results_of(name: str, *, folder: Path) -> tuple[list[StoredResult], list[ResultError]]:
    """The results that a name stands for, and the problems: a file, a folder, or a commit, of which `folder` is read.

    Raises ResultError for a name that is none of these.
    """
    path = Path(name)
    if path.is_dir():
        return read_results([path])
    if path.is_file():
        return [StoredResult(path, read_result(path))], []
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if commit is None:
        raise ResultError(
            f"{name} is neither a result file, a folder of results nor a commit of this repository; "
            f"name two of these, such as results/a.json, results, or main~5 (whose {folder.as_posix()} is read)"
        )
    return _results_in(name, commit.decode().strip(), folder)


def _results_in(name: str, commit: str, folder: Path) -> tuple[list[StoredResult], list[ResultError]]:
    archive = _git("archive", "--format=tar", commit, "--", folder.as_posix())
    texts: dict[str, bytes] = {}
    if archive is not None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            for member in files.getmembers():
                inside = PurePosixPath(member.name)
                content = files.extractfile(member) if member.isfile() else None
                if content is not None and is_result_name(inside.name):
                    texts[member.name] = content.read()
    if not texts:
        raise ResultError(f"the commit {name} has no results in {folder.as_posix()}; name another commit, or a folder")
    stored: list[StoredResult] = []
    problems: list[ResultError] = []
    for inside_name, text in sorted(texts.items()):
        where = Path(f"{name}:{inside_name}")
        try:
            stored.append(StoredResult(where, parse_result(text.decode(errors="replace"), where)))
        except ResultError as error:
            problems.append(error)
    return stored, problems


def _git(*words: str) -> bytes | None:
    """What git prints; None where there is no git, no repository, or nothing by that name."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
