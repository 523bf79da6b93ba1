"""Publishing the leaderboard: LEADERBOARD.md, its charts and the page, made from the results beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote

from odebench.analysis.claims import claims_of
from odebench.errors import ResultError
from odebench.io.canonical_json import digest
from odebench.io.files import write_atomically
from odebench.io.folders import PublishedFolder
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.example_images import read_examples
from odebench.leaderboard.read import read_results
from odebench.leaderboard.table import Table
from odebench.leaderboard.union import StoredResult
from odebench.protocol.registration import ClaimCells
from odebench.render.chart_data import Chart
from odebench.render.chart_svg import chart_svg, embedded_sha256
from odebench.render.leaderboard_markdown import CHARTS, PAGE, TABLES, charts_of, leaderboard_markdown
from odebench.render.page import check_page, embedded_page_sha256, page_html
from odebench.render.page_data import PageContent


@dataclass(frozen=True)
class LeaderboardFiles:
    """The texts of LEADERBOARD.md and its pages by file name, each chart with the digest of its results, the content
    of index.html with its digest, and
    the problems: which files were left out."""

    texts: Mapping[str, str]
    charts: tuple[tuple[Chart, str], ...]
    page: PageContent
    page_sha256: str
    problems: tuple[ResultError, ...]


def leaderboard_files(folder: Path, asked: Sequence[ClaimCells]) -> LeaderboardFiles:
    """The files of `folder`, from its results and the claims `asked` of them. Raises ResultError where there is no
    folder of results."""
    published = PublishedFolder(folder)
    content, problems = page_content([published.results], asked, [published.study])
    charts = charts_of(content.tables)
    return LeaderboardFiles(
        texts=leaderboard_markdown(content.tables, content.claims, folder=folder),
        charts=tuple((chart, _digest(content.stored, table)) for table, chart in charts),
        page=content,
        page_sha256=content.sha256(folder),
        problems=tuple(problems),
    )


def page_content(
    folders: Sequence[Path], asked: Sequence[ClaimCells], studies: Sequence[Path] = ()
) -> tuple[PageContent, list[ResultError]]:
    """The content of a page of results, and what was left out. The results of `studies`, folders that need not exist,
    enter the claims `asked`, and no table. Raises ResultError for another folder that does not exist."""
    stored, problems = read_results(folders)
    of_studies, more = read_results([folder for folder in studies if folder.is_dir()])
    tables, contradictions = build_tables(stored)
    strips, damaged = read_examples(folders, stored)
    claims = claims_of(asked, [*stored, *of_studies])
    content = PageContent(tuple(stored), tuple(tables), tuple(claims), tuple(strips))
    return content, [*problems, *more, *contradictions, *damaged]


def publish(folder: Path, asked: Sequence[ClaimCells]) -> tuple[list[Path], tuple[ResultError, ...]]:
    """Writes LEADERBOARD.md, its pages, charts and index.html, removes other charts and pages, and returns the files
    written and the problems of the results. Raises UsageError without the extra `page`, and FileError."""
    check_page()
    found = leaderboard_files(folder, asked)
    html = page_html(found.page, link=lambda path: quote(path.relative_to(folder).as_posix()), sha256=found.page_sha256)
    drawn = {_svg(folder, chart): chart_svg(chart, sha256) for chart, sha256 in found.charts}
    # everything is rendered before anything is written, so that an error leaves the old board whole
    pages = {folder / name: text for name, text in found.texts.items()}
    texts = {**pages, **drawn, folder / PAGE: html}
    for path, text in texts.items():
        write_atomically(path, text.encode())
    for path in _others(folder, list(texts)):
        path.unlink()
    return list(texts), found.problems


def stale(folder: Path, asked: Sequence[ClaimCells]) -> tuple[list[str], tuple[ResultError, ...]]:
    """What `publish` would change, one line each, and the problems of the results. Charts and page are compared by the
    digest of their results, because another version of the drawing library writes other bytes."""
    found = leaderboard_files(folder, asked)
    lines = []
    for name, wanted in found.texts.items():
        page = folder / name
        if (given := _text(page)) is None:
            lines.append(f"{page} is missing")
        elif given != wanted:
            pairs = enumerate(zip_longest(given.splitlines(), wanted.splitlines()), 1)
            where = next((number for number, (old, new) in pairs if old != new), 1)
            lines.append(f"{page} is stale: line {where} is not what the results say")
    files = [_svg(folder, chart) for chart, _ in found.charts]
    drawn = [(path, embedded_sha256, sha256) for path, (_, sha256) in zip(files, found.charts, strict=True)]
    for path, embedded, sha256 in [*drawn, (folder / PAGE, embedded_page_sha256, found.page_sha256)]:
        if (text := _text(path)) is None:
            lines.append(f"{path} is missing")
        elif embedded(text) != sha256:
            made = "drawn from other results" if path in files else "made from other results or images"
            lines.append(f"{path} is stale: it was {made}")
    lines += [
        f"{path} is stale: it is no longer needed"
        for path in _others(folder, [*files, *(folder / name for name in found.texts)])
    ]
    return lines, found.problems


def _digest(stored: Sequence[StoredResult], table: Table) -> str:
    """The sha256 of all that a chart may show of one data set's results."""
    same = [
        [item.result.run_key, item.result.outcomes_sha256, item.result.found.weights_sha256, [*item.result.flags]]
        for item in stored
        if item.result.found.dataset_sha256 == table.dataset_sha256
        and item.evaluation.dataset.name == table.dataset
        and item.evaluation.dataset.split == table.split
    ]
    return digest({"results": sorted(same)})


def _svg(folder: Path, chart: Chart) -> Path:
    return folder / CHARTS / f"{chart.name}.svg"


def _others(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The charts and tables that nothing asks for."""
    there = [*(folder / CHARTS).glob("*.svg"), *(folder / TABLES).glob("*.md")]
    return sorted(path for path in there if path not in files)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
