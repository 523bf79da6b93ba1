"""`odebench leaderboard`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.root import app
from odebench.errors import ResultError, UsageError

LOCAL_RESULTS = Path("results")
PUBLISHED_RESULTS = Path("leaderboard/results")


class Format(str, Enum):
    """How tables are written."""

    md = "md"
    csv = "csv"
    json = "json"


@app.command(
    epilog="Examples:\n\nodebench leaderboard\n\nodebench leaderboard runs/a runs/b --format csv --output all.csv\n\n"
    "odebench leaderboard --publish"
)
def leaderboard(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of results. Default: ./results, else ./leaderboard/results."),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Markdown, CSV or JSON.")] = Format.md,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file.")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Write leaderboard/LEADERBOARD.md and charts from leaderboard/results.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 where what --publish wrote is stale.")] = False,
) -> None:
    """Rank results: a table per data set and threat model, accuracy against horizon."""
    if publish or check:
        if results or output or format is not Format.md or (publish and check):
            raise UsageError("--publish and --check stand alone: they read leaderboard/results, and nothing else")
        publish_board() if publish else _check()
        return
    from odebench.file import write_output
    from odebench.leaderboard import build_tables, read_results

    stored, problems = read_results(results or default_folders())
    tables, contradictions = build_tables(stored)
    if format is Format.md:
        from odebench.render.markdown import markdown as render
    elif format is Format.csv:
        from odebench.render.record import csv_text as render
    else:
        from odebench.render.record import json_text as render
    write_output(render(tables), output)
    end_with([*problems, *contradictions])


def publish_board() -> None:
    """Writes leaderboard/LEADERBOARD.md and its pictures, and names the files."""
    from odebench.publication import publish

    files, problems = publish(PUBLISHED_RESULTS.parent)
    for path in files:
        print(path)
    end_with(problems)


def _check() -> None:
    from odebench.publication import stale

    lines, problems = stale(PUBLISHED_RESULTS.parent)
    for line in lines:
        print(f"odebench: {line}; run odebench leaderboard --publish", file=sys.stderr)
    end_with(problems)
    if lines:
        raise typer.Exit(1)


def end_with(problems: Sequence[ResultError]) -> None:
    """Names the problems on standard error, a line each, and ends with exit 1 where there are any."""
    for problem in problems:
        print(f"odebench: {problem}", file=sys.stderr)
    if problems:
        count = len(problems)
        print(
            f"odebench: {count} problem{'s' * (count > 1)}; files that are no results are left out of the tables",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def default_folders() -> list[Path]:
    """What `run` wrote here, else what is published here: weights trained on two machines are never joined."""
    for folder in (LOCAL_RESULTS, PUBLISHED_RESULTS):
        if folder.is_dir():
            return [folder]
    raise ResultError(
        f"there is no folder {LOCAL_RESULTS} here; run an evaluation first, such as "
        "odebench run --model kd-ode --attack pgd, or name a folder of results"
    )
