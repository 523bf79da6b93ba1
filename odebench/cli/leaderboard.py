"""`odebench leaderboard`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from odebench.cli.results import ResultFolders, default_folder, say_folders
from odebench.cli.root import app
from odebench.errors import OdebenchError, UsageError
from odebench.io.folders import LEADERBOARD

if TYPE_CHECKING:
    from odebench.leaderboard.model_card import Provenance
    from odebench.leaderboard.selection import Selection
    from odebench.protocol.registration import ClaimCells


class Format(str, Enum):
    """How tables are written."""

    md = "md"
    html = "html"
    csv = "csv"
    json = "json"


class By(str, Enum):
    """What a row of the tables is."""

    model = "model"
    attack = "attack"
    seed = "seed"


@app.command(
    epilog="Examples:\n\nodebench leaderboard\n\nodebench leaderboard runs/a runs/b --format csv --output all.csv\n\n"
    "odebench leaderboard -d digits --norm linf -m ode,kd-ode --chart digits.svg\n\n"
    "odebench leaderboard -m kd-ode --by attack\n\n"
    "odebench leaderboard --format html --output board.html\n\nodebench leaderboard --serve\n\n"
    "odebench leaderboard --publish"
)
def leaderboard(
    results: ResultFolders = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Markdown, a page, CSV or JSON.")] = Format.md,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file.")] = None,
    by: Annotated[By, typer.Option("--by", help="A row per model, or also per attack or train seed.")] = By.model,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", help="These data sets alone, such as digits.")
    ] = None,
    norm: Annotated[list[str] | None, typer.Option("--norm", help="These norms alone: linf, l2.")] = None,
    epsilon: Annotated[list[str] | None, typer.Option(help="These radii alone, such as 0.1,8/255.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="These models alone, such as ode,kd-ode.")
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(help="Draw accuracy against horizon and epsilon into FILE.svg or FILE.png."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Write LEADERBOARD.md, charts and page from leaderboard/results.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if the published files are stale.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Open the page in a browser, from 127.0.0.1.")] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="--serve: the port. Default 8000, else any that is free.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="--serve: open a browser.")] = True,
) -> None:
    """Rank results: a table per data set and threat model, accuracy against horizon."""
    if publish or check:
        others = (results, output, dataset, norm, epsilon, model, chart, serve, port is not None, by is not By.model)
        if any(others) or format is not Format.md or (publish and check):
            raise UsageError("--publish and --check take no other options: they read leaderboard/results alone")
        publish_leaderboard() if publish else _check()
        return
    if port is not None and not serve:
        raise UsageError("--port goes with --serve")
    selection = selected(dataset, norm, model, epsilon)
    folders = results or [default_folder()]
    if (serve or format is Format.html) and (chart is not None or by is not By.model):
        raise UsageError("--chart and --by go with md, csv and json; the page has charts and attacks of its own")
    if chart is not None:
        from odebench.render.results_chart import check_chart_file

        check_chart_file(chart)
    read = partial(say_folders, *folders) if results is None else lambda: None
    if serve:
        if output or format is not Format.md:
            raise UsageError("--serve shows the page and writes nothing: leave out --format and --output")
        _serve(folders, selection, port, browser=browser, read=read)
    elif format is Format.html:
        _page(folders, selection, output, read=read)
    else:
        _tables(folders, selection, format, output, by, chart, read=read)


def _tables(
    folders: Sequence[Path],
    selection: Selection,
    format: Format,
    output: Path | None,
    by: By,
    chart: Path | None,
    *,
    read: Callable[[], None],
) -> None:
    from odebench.io.files import write_atomically
    from odebench.leaderboard.build import build_tables
    from odebench.leaderboard.read import read_results
    from odebench.leaderboard.table_parts import TableParts
    from odebench.render.breakdown import BREAKDOWNS, breakdown_markdown, tables_apart, with_train_seeds
    from odebench.render.markdown_tables import markdown
    from odebench.render.records import csv_text, json_text

    there, problems = read_results(folders, keep=TableParts().of)
    with naming(problems):
        stored = selection.results(there)
        found, contradictions = build_tables(stored)
        tables = selection.tables(found)
    read()
    apart = BREAKDOWNS.get(by.value)
    if format is Format.md:
        text = markdown(tables) if apart is None else breakdown_markdown(stored, tables, selection, apart)
    else:
        shown = tables if apart is None else tables_apart(stored, selection, apart)
        shown = with_train_seeds(shown) if by is By.seed else shown
        text = csv_text(shown) if format is Format.csv else json_text(shown)
    _write(text, output)
    if chart is not None:
        from odebench.render.results_chart import results_chart

        write_atomically(chart, results_chart(tables, chart))
        print(f"chart: {chart}", file=sys.stderr)
    end_with([*problems, *contradictions])


def _write(text: str, output: Path | None, *, escaped: bool = False) -> None:
    from odebench.io.files import write_output

    write_output(text, output, escaped=escaped)
    if output is not None:
        print(f"written: {output}", file=sys.stderr)


def _page(folders: Sequence[Path], selection: Selection, output: Path | None, *, read: Callable[[], None]) -> None:
    from odebench.render.page import page_html
    from odebench.render.publish import page_content

    made_by = _provenance(folders)
    content, problems = page_content(folders, *claims_beside(folders), provenance=made_by, selection=selection)
    read()
    start = output.parent if output is not None and (output.is_file() or not output.exists()) else Path()

    def link(path: Path) -> str:
        return quote(Path(os.path.relpath(path, start)).as_posix())

    _write(page_html(content, link=link), output, escaped=True)
    end_with([*problems, *made_by.problems])


def _serve(
    folders: Sequence[Path], selection: Selection, port: int | None, *, browser: bool, read: Callable[[], None]
) -> None:
    from odebench.cli.serve import serve
    from odebench.render.page import page_html
    from odebench.render.publish import page_content

    made_by = _provenance(folders)
    content, left_out = page_content(folders, *claims_beside(folders), provenance=made_by, selection=selection)
    read()
    addresses = {item.path: f"/results/{number}/{quote(item.path.name)}" for number, item in enumerate(content.stored)}
    html = page_html(content, link=lambda path: addresses[path])
    problems = [*left_out, *made_by.problems]
    for problem in problems:
        print(f"odebench: {problem}", file=sys.stderr)
    serve(html, {address: path for path, address in addresses.items()}, port=port, browser=browser)
    if problems:
        raise typer.Exit(1)


def publish_leaderboard() -> None:
    """Writes leaderboard/LEADERBOARD.md, its charts and the page, and prints the paths."""
    from odebench.render.publish import publish

    made_by = _provenance([LEADERBOARD.results])
    files, problems = publish(LEADERBOARD.path, published_claims(), made_by)
    for path in files:
        print(path)
    end_with([*problems, *made_by.problems])


def _check() -> None:
    from odebench.render.publish import FOREIGN, stale

    made_by = _provenance([LEADERBOARD.results])
    lines, problems = stale(LEADERBOARD.path, published_claims(), made_by)
    for line in lines:
        remedy = "" if line.endswith(FOREIGN) else "; run odebench leaderboard --publish"
        print(f"odebench: {line}{remedy}", file=sys.stderr)
    end_with([*problems, *made_by.problems])
    if lines:
        raise typer.Exit(1)
    print(f"{LEADERBOARD.path} is up to date")


def selected(
    datasets: Sequence[str] | None,
    norms: Sequence[str] | None,
    models: Sequence[str] | None = None,
    epsilons: Sequence[str] | None = None,
) -> Selection:
    """The selection that options name. Raises UsageError."""
    from odebench.cli.options import listed
    from odebench.leaderboard.selection import Selection
    from odebench.protocol.spec import parse_number

    return Selection(
        tuple(listed(datasets or (), "data set")),
        tuple(listed(norms or (), "norm")),
        tuple(listed(models or (), "model")),
        tuple(parse_number(text, name="epsilon") for text in listed(epsilons or (), "epsilon")),
    )


def asked_claims(registration: Path | None = None) -> list[ClaimCells]:
    """The registered claims with their cells: of a file, else of ./leaderboard, else odebench's own."""
    from odebench.protocol.registration import registration_file
    from odebench.sweep.registered import registered_claims, with_history

    path = registration or registration_file(LEADERBOARD.path)
    return with_history(path, registered_claims(path))


def published_claims() -> list[ClaimCells]:
    """The claims that ./leaderboard registers; none where it registers none. What is published hangs on files alone, so
    the history of the registration is left to `odebench claims`."""
    from odebench.protocol.registration import REGISTRATION
    from odebench.sweep.registered import registered_claims

    path = LEADERBOARD.path / REGISTRATION
    return registered_claims(path) if path.is_file() else []


def claims_beside(folders: Sequence[Path]) -> tuple[list[ClaimCells], list[Path]]:
    """The claims of a board of these folders, and the folders of results without weights: those of ./leaderboard where
    its results are among them, else none."""
    return (published_claims(), [LEADERBOARD.study]) if LEADERBOARD.results in folders else ([], [])


def _provenance(folders: Sequence[Path]) -> Provenance:
    """The commands and claims of results: the entries of ./leaderboard claim where its results are among them."""
    from odebench.submission.provenance import provenance

    return provenance(LEADERBOARD.entries if LEADERBOARD.results in folders else None)


@contextmanager
def naming(problems: Sequence[OdebenchError]) -> Iterator[None]:
    """Prints the problems before an error, which may come from what they left out."""
    try:
        yield
    except UsageError:
        for problem in problems:
            print(f"odebench: {problem}", file=sys.stderr)
        raise


def end_with(problems: Sequence[OdebenchError]) -> None:
    """Prints the problems on standard error, one line each, and exits with 1 where there are any."""
    for problem in problems:
        print(f"odebench: {problem}", file=sys.stderr)
    if problems:
        count = len(problems)
        print(
            f"odebench: {count} problem{'s' * (count > 1)}; files that cannot be read are left out",
            file=sys.stderr,
        )
        raise typer.Exit(1)
