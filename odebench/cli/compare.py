"""`odebench compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from odebench.cli.leaderboard import end_with
from odebench.cli.options import AsJson
from odebench.cli.root import app
from odebench.io.folders import LEADERBOARD


@app.command(
    epilog="Examples:\n\nodebench compare main~5 main\n\nodebench compare runs/a runs/b\n\n"
    "odebench compare results/ode/a.json results/kd-ode/b.json --json"
)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A result file, a folder of results, or a git commit.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    as_json: AsJson = False,
) -> None:
    """Compare two results, folders or commits: letters, figures, intervals.

    For a commit, its leaderboard/results is read.
    """
    from odebench.analysis.comparison import difference
    from odebench.io.files import write_output
    from odebench.leaderboard.read import results_of
    from odebench.render.comparison import difference_json, difference_text

    first, problems = results_of(a, folder=LEADERBOARD.results)
    second, more = results_of(b, folder=LEADERBOARD.results)
    found = difference(first, second)
    write_output(difference_json(found) if as_json else difference_text(found, a, b), None)
    end_with([*problems, *more])
