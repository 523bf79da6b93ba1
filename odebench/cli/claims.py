"""`odebench claims`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.leaderboard import asked_claims, end_with
from odebench.cli.options import AsJson, complete_dataset, listed
from odebench.cli.results import default_folder, say_folders
from odebench.cli.root import app
from odebench.errors import unknown_name
from odebench.io.folders import LEADERBOARD, published_folders


@app.command(epilog="Examples:\n\nodebench claims -d digits\n\nodebench claims runs/a --json")
def claims(
    results: Annotated[
        list[Path] | None, typer.Argument(help="Folders of results. Default: the published ones, else ./results.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", "-d", help="Claims about these data sets alone.", autocompletion=complete_dataset),
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

    asked, names = asked_claims(registration), listed(dataset or (), "data set")
    known = {each.claim.dataset for each in asked}
    for name in names:
        if name not in known:
            raise unknown_name("data set among the claims:", name, known)
    folders = results or [default_folder(published_first=True)]
    boards = [board for board in dict.fromkeys([LEADERBOARD, *published_folders()]) if board.results in folders]
    stored, problems = read_results([*folders, *(board.study for board in boards if board.study.is_dir())])
    if results is None:
        say_folders(*folders)
    # all are answered, since the p of each is adjusted for the others of its family
    found = [claim for claim in claims_of(asked, stored) if not names or claim.registered.dataset in names]
    write_output(claims_json(found) if as_json else claims_markdown(found), None)
    end_with(problems)
