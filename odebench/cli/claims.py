"""`odebench claims`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.leaderboard import default_folders, end_with
from odebench.cli.options import AsJson
from odebench.cli.root import app


@app.command(epilog="Examples:\n\nodebench claims\n\nodebench claims runs/a --json")
def claims(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of results. Default: ./results, else ./leaderboard/results."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Does distillation or a longer horizon help? Answers with interval, p and what they rest on."""
    from odebench.analysis.claims import claims_of
    from odebench.io.files import write_output
    from odebench.leaderboard.build import build_tables
    from odebench.leaderboard.read import read_results
    from odebench.render.claims import claims_json, claims_markdown

    stored, problems = read_results(results or default_folders())
    _, contradictions = build_tables(stored)
    found = claims_of(stored)
    write_output(claims_json(found) if as_json else claims_markdown(found), None)
    end_with([*problems, *contradictions])
