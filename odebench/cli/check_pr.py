"""`odebench check-pr`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.options import AsJson, DataDir, Device, TimeLimit
from odebench.cli.root import app
from odebench.submission.limits import TIME_LIMIT


@app.command(
    "check-pr",
    epilog="Examples:\n\nodebench check-pr origin/main\n\nodebench check-pr origin/main --trust --summary review.md\n\n"
    "odebench check-pr origin/main --trust --draw 1234 --json",
)
def check_pr(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="The branch or commit that the pull request goes to: origin/main.")
    ],
    trust: Annotated[bool, typer.Option("--trust", help="Run the entries' own code.")] = False,
    summary: Annotated[Path | None, typer.Option(help="Write findings and a table of the models, Markdown.")] = None,
    draw: Annotated[int | None, typer.Option(min=0, help="Seed that draws the chunks. Default: random.")] = None,
    maintainer: Annotated[
        bool, typer.Option("--maintainer", help="Entries, results and weights of others may be changed.")
    ] = False,
    time_limit: TimeLimit = TIME_LIMIT,
    unwalled: Annotated[
        bool, typer.Option("--unwalled", help="Run code even if it can read this machine's secrets.")
    ] = False,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Review what HEAD changes in leaderboard since it left BASE; exit 1 if anything is wrong.

    Checks who owns the files, recomputes results, validates and verifies each changed entry on two chunks.
    """
    from odebench.cli.console import ScreenProgress, write_text
    from odebench.io.files import write_output
    from odebench.io.text import fill
    from odebench.render.markdown_tables import LEGEND, sections
    from odebench.submission.review import review
    from odebench.submission.review_markdown import entry_lines, outside_lines, review_markdown, verdict

    found = review(
        base,
        trust=trust,
        maintainer=maintainer,
        draw=draw,
        time_limit=time_limit,
        unwalled=unwalled,
        device=device,
        data_dir=data_dir,
        progress=ScreenProgress(),
    )
    if summary is not None:
        tables = "\n".join([*sections(found.tables, level=3), fill(LEGEND), ""]) if found.tables else ""
        write_output(review_markdown(found, tables=tables), summary)
    if as_json:
        write_text(json.dumps(found.json(), indent=1))
    else:
        for line in [*map(str, found.all_findings), *found.notes, *entry_lines(found)]:
            print(line)
        if outside := outside_lines(found):
            print(f"outside of entries and results, for a normal review: {', '.join(outside)}")
        print(f"{verdict(found)} (chunks and results drawn by --draw {found.draw})")
    if found.all_findings:
        raise typer.Exit(1)
