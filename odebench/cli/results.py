"""Which folder of results is read where none is named: one's own for tables, the published one for claims and
comparisons of models."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.verbosity import Verbosity, verbosity
from odebench.errors import ResultError
from odebench.io.folders import published_folders

LOCAL_RESULTS = Path("results")

ResultFolders = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders of results. Default: ./results if it holds any, else the published ones."),
]


def default_folder(*, published_first: bool = False) -> Path:
    """The folder that `run` writes to here if it holds results, else the published one, or the other way round; not
    both: their weights may differ. Raises ResultError where there is neither."""
    folders = known_folders(published_first=published_first)
    for folder in (*_with_results(folders), *folders):
        return folder
    raise ResultError(
        f"there is no folder {LOCAL_RESULTS} here; run an evaluation first, such as "
        "odebench run --model kd-ode --attack pgd, or name a folder of results"
    )


def folders_of_models(*names: str) -> list[Path]:
    """Where the results of these models lie: all in the published folder or all in ./results, else each in the first
    that has it. The default folder where a model has none."""
    folders = known_folders(published_first=True)
    for folder in folders:
        if all((folder / name).is_dir() for name in names):
            return [folder / name for name in dict.fromkeys(names)]
    found = [next((folder / name for folder in folders if (folder / name).is_dir()), None) for name in names]
    there = [folder for folder in found if folder is not None]
    return there if len(there) == len(names) else [default_folder(published_first=True)]


def say_folders(*read: Path) -> None:
    """Says on standard error which folder was read where none was given, unless ./results is all there is."""
    if verbosity() is Verbosity.QUIET:
        return
    others = [folder for folder in _with_results(known_folders()) if folder not in read]
    if others or read != (LOCAL_RESULTS,):
        more = "".join(f"; name {other} to read that" for other in others[:1])
        print(f"results: {', '.join(map(str, read))}{more}", file=sys.stderr)


def known_folders(*, published_first: bool = False) -> list[Path]:
    """The folders that are read where none is named, as far as they exist, each once: ./results first, or last."""
    published = [folder.results for folder in published_folders()]
    known = [*published, LOCAL_RESULTS] if published_first else [LOCAL_RESULTS, *published]
    return [*{folder.resolve(): folder for folder in reversed(known) if folder.is_dir()}.values()][::-1]


def _with_results(folders: Iterable[Path]) -> list[Path]:
    from odebench.result.file import result_files

    return [folder for folder in folders if next(result_files(folder), None) is not None]
