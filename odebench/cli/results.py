"""Which folder of results is read where none is named: one rule for all commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.verbosity import Verbosity, verbosity
from odebench.errors import ResultError
from odebench.io.folders import LEADERBOARD, published_folder

LOCAL_RESULTS = Path("results")

ResultFolders = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders of results. Default: ./results if it holds any, else the published ones."),
]


def default_folder() -> Path:
    """The folder that `run` writes to here if it holds results, else the published one; not both: their weights may
    differ. Raises ResultError where there is neither."""
    folders = known_folders()
    for folder in (*_with_results(folders), *folders):
        return folder
    raise ResultError(
        f"there is no folder {LOCAL_RESULTS} here; run an evaluation first, such as "
        "odebench run --model kd-ode --attack pgd, or name a folder of results"
    )


def say_default(given: object) -> None:
    """Says on standard error which folder was read where none was given, unless ./results is all there is."""
    if given or verbosity() is Verbosity.QUIET:
        return
    read = default_folder()
    others = [folder for folder in _with_results(known_folders()) if folder != read]
    if others or read != LOCAL_RESULTS:
        print(f"results: {read}{''.join(f'; name {other} to read that' for other in others[:1])}", file=sys.stderr)


def known_folders() -> list[Path]:
    """The folders that are read where none is named, as far as they exist: the first that holds results."""
    published = published_folder()
    known = [LOCAL_RESULTS, LEADERBOARD.results, *([] if published is None else [published.results])]
    return [folder for folder in dict.fromkeys(known) if folder.is_dir()]


def _with_results(folders: Iterable[Path]) -> list[Path]:
    from odebench.result.file import result_files

    return [folder for folder in folders if next(result_files(folder), None) is not None]
