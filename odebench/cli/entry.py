"""`odebench new-entry` and `validate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.options import AsJson, distinct
from odebench.cli.root import app
from odebench.errors import UsageError
from odebench.io.folders import LEADERBOARD
from odebench.io.text import hanging


@app.command(
    "new-entry",
    epilog="Examples:\n\nodebench new-entry my-ode\n\nodebench new-entry my-ode --to drafts\n\n"
    "odebench new-entry kd-ode --published\n\nodebench new-entry --published",
)
def new_entry(
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="Small letters, digits and dashes, such as my-ode.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Parent folder of the new entry.")] = LEADERBOARD.entries,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Write or refresh the entry of a listed model, or of all, from leaderboard/results and weights.",
        ),
    ] = False,
) -> None:
    """Write the folder of a new entry (a model to submit), with comments on each key."""
    from odebench.submission.new_entry import new_entry as write
    from odebench.submission.published_entry import published_models, write_published

    if published and to != LEADERBOARD.entries:
        raise UsageError("--published writes to leaderboard/entries, beside what it reads; leave out --to")
    if name is None and not published:
        raise UsageError("give the id of the new entry, such as: odebench new-entry my-ode")
    if published:
        names = published_models(LEADERBOARD) if name is None else [name]
        files = [path for each in names for path in write_published(each, LEADERBOARD)]
    else:
        files = write(str(name), to)
    for path in files:
        print(path)


@app.command(
    epilog="Examples:\n\nodebench validate leaderboard/entries/my-ode\n\nodebench validate\n\n"
    "odebench validate leaderboard/entries/my-ode --fix\n\n"
    "odebench validate leaderboard/entries/* --json"
)
def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Folders of entries. Default: all in leaderboard/entries."),
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Also fetch and check weights stored elsewhere.")] = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="First write sha256, bytes and parameters of weights files into entry.yaml."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check entries without running their code; exit 1 if something is wrong.

    Schema, types, licence, weights (sha256, size, header, finite), pickles under any name, sizes, links, clashes.
    """
    from odebench.cli.console import ScreenProgress, print_finding, write_text
    from odebench.submission.entry import ENTRY_FILE
    from odebench.submission.fix import fix_entry
    from odebench.submission.submitted_model import entry_folders
    from odebench.submission.validate import validate_entry
    from odebench.submission.weights import fetching

    known = entry_folders()
    folders = [path.parent if path.name == ENTRY_FILE else path for path in paths or _all()]
    folders = [path if path.exists() else known.get(str(path), path) for path in folders]
    distinct(folders, "folder")
    if fix:
        for folder in folders:
            for line in fix_entry(folder) if (folder / ENTRY_FILE).is_file() else []:
                print(hanging(line), file=sys.stderr if as_json else sys.stdout)
    fetched = fetching(ScreenProgress()) if fetch else None
    reports = [validate_entry(folder, fetch=fetched) for folder in folders]
    if as_json:
        write_text(json.dumps([report.json() for report in reports], indent=1))
    else:
        for report in reports:
            for finding in report.findings:
                print_finding(finding)
            count = len(report.findings)
            looked = "looked at" if fetch else "not looked at (--fetch)"
            elsewhere = f", {report.weights_elsewhere} elsewhere {looked}" if report.weights_elsewhere else ""
            here = f"weights files here: {report.weights_here}"
            said = f"{count} finding{'s' * (count > 1)}" if count else f"good; {here}{elsewhere}"
            print(hanging(f"{report.id}: {said}"))
    if any(report.findings for report in reports):
        raise typer.Exit(1)


def _all() -> list[Path]:
    folder = LEADERBOARD.entries
    found = sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    if not found:
        raise UsageError(f"there are no entries in {folder}; name a folder, or write one: odebench new-entry ID")
    return found
