"""`odebench claims`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.leaderboard import asked_claims, default_folders, end_with, say_default
from odebench.cli.options import AsJson
from odebench.cli.root import app
from odebench.io.folders import LEADERBOARD


@app.command(epilog="Examples:\n\nodebench claims\n\nodebench claims runs/a --json")
def claims(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of results. Default: ./leaderboard/results, else ./results."),
    ] = None,
    registration: Annotated[
        Path | None,
        typer.Option(help="File of registered claims. Default: leaderboard/claims.yaml, else odebench's own."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Does distillation or a longer horizon help? Answers to the registered claims, with intervals."""
    from odebench.analysis.claims import claims_of
    from odebench.io.files import write_output
    from odebench.leaderboard.read import read_results
    from odebench.render.claims import claims_json, claims_markdown

    asked = asked_claims(registration)
    folders = results or default_folders(published=True)
    studies = [LEADERBOARD.study] if LEADERBOARD.results in folders and LEADERBOARD.study.is_dir() else []
    stored, problems = read_results([*folders, *studies])
    say_default(results, published=True)
    found = claims_of(asked, stored)
    write_output(claims_json(found) if as_json else claims_markdown(found), None)
    end_with(problems)
