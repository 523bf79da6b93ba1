"""Publishing the leaderboard: LEADERBOARD.md, data files, charts and page, made from the results beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote

from odebench.analysis.claims import claims_of
from odebench.errors import ResultError
from odebench.io.files import write_atomically
from odebench.io.folders import PublishedFolder
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.example_images import read_examples
from odebench.leaderboard.model_card import NO_PROVENANCE, Provenance
from odebench.leaderboard.read import read_results
from odebench.leaderboard.selection import Selection
from odebench.protocol.registration import ClaimCells
from odebench.render.chart_svg import chart_svg
from odebench.render.data_schema import schema_text
from odebench.render.gain_map_svg import NAME as GAINS
from odebench.render.gain_map_svg import gains_svg
from odebench.render.leaderboard_markdown import CHARTS, PAGE, TABLES, charts_of, leaderboard_markdown
from odebench.render.page import page_html
from odebench.render.page_data import PageContent
from odebench.render.records import csv_text, data_file

ROOT = ".."
"""The repository, as seen from the published page."""


DATA = "leaderboard.json"
TABLE = "leaderboard.csv"
SCHEMA = "leaderboard.schema.json"

FOREIGN = "is not a published file: take it away"
"""How a line about a file ends that `publish` neither writes nor removes."""

EVERYTHING = Selection()


@dataclass(frozen=True)
class LeaderboardFiles:
    """The texts of all files but the page, by their name in the folder: LEADERBOARD.md and its pages, the data files
    and the charts; the content of index.html; and the problems: which files were left out."""

    texts: Mapping[str, str]
    page: PageContent
    problems: tuple[ResultError, ...]


def leaderboard_files(
    folder: Path, asked: Sequence[ClaimCells], provenance: Provenance = NO_PROVENANCE
) -> LeaderboardFiles:
    """The files of `folder`, from its results and the claims `asked` of them. Raises ResultError where there is no
    folder of results."""
    published = PublishedFolder(folder)
    content, problems = page_content([published.results], asked, [published.study], provenance=provenance)
    return LeaderboardFiles(
        texts={
            **leaderboard_markdown(content.tables, content.claims, folder=folder, adversarial=provenance.adversarial),
            DATA: data_file(content.tables),
            TABLE: csv_text(content.tables),
            SCHEMA: schema_text(),
            **{f"{CHARTS}/{chart.name}.svg": chart_svg(chart) for _, chart in charts_of(content.tables)},
            **({} if (gains := gains_svg(content.claims)) is None else {f"{CHARTS}/{GAINS}.svg": gains}),
        },
        page=content,
        problems=tuple(problems),
    )


def page_content(
    folders: Sequence[Path],
    asked: Sequence[ClaimCells],
    studies: Sequence[Path] = (),
    *,
    provenance: Provenance = NO_PROVENANCE,
    selection: Selection = EVERYTHING,
) -> tuple[PageContent, list[ResultError]]:
    """The content of a page of results, and what was left out. The results of `studies`, folders that need not exist,
    enter the claims `asked`, and no table. Tables and images are those of the `selection`. Raises ResultError for
    another folder that does not exist."""
    stored, problems = read_results(folders)
    of_studies, more = read_results([folder for folder in studies if folder.is_dir()])
    claims = claims_of(asked, [*stored, *of_studies])
    stored = selection.results(stored) if selection else stored
    found, contradictions = build_tables(stored)
    tables = selection.tables(found)
    strips, damaged = read_examples(folders, stored)
    content = PageContent(tuple(stored), tuple(tables), tuple(claims), tuple(strips), provenance)
    return content, [*problems, *more, *contradictions, *damaged]


def publish(
    folder: Path, asked: Sequence[ClaimCells], provenance: Provenance = NO_PROVENANCE
) -> tuple[list[Path], tuple[ResultError, ...]]:
    """Writes LEADERBOARD.md, its pages, data files, charts and index.html, removes other charts and pages, and returns
    the files written and the problems of the results. Raises FileError, and ResultError for a result by an attack that
    was handed over in Python."""
    found = leaderboard_files(folder, asked, provenance)
    for item in found.page.stored:
        if item.evaluation.attack.is_function:
            raise ResultError(
                f"{item.path} is by {item.evaluation.attack.name}, a function handed over in Python, which nobody else "
                "can run: take the file away, or make the attack a plugin (docs/plugins.md)"
            )
    # everything is rendered before anything is written, so that an error leaves the old board whole
    texts = {folder / name: text for name, text in {**found.texts, PAGE: _page(found.page, folder)}.items()}
    for path, text in texts.items():
        write_atomically(path, text.encode())
    for path in _others(folder, list(texts)):
        path.unlink()
    return list(texts), found.problems


def stale(
    folder: Path, asked: Sequence[ClaimCells], provenance: Provenance = NO_PROVENANCE
) -> tuple[list[str], tuple[ResultError, ...]]:
    """What `publish` would change, one line each, and the problems of the results: every file is made again and
    compared byte for byte."""
    found = leaderboard_files(folder, asked, provenance)
    wanted = {folder / name: text for name, text in {**found.texts, PAGE: _page(found.page, folder)}.items()}
    lines = [line for path, text in wanted.items() if (line := _difference(path, text)) is not None]
    lines += [f"{path} is stale: it is no longer needed" for path in _others(folder, list(wanted))]
    lines += [f"{path} {FOREIGN}" for path in _foreign(folder, wanted)]
    return lines, found.problems


def _page(content: PageContent, folder: Path) -> str:
    return page_html(content, link=lambda path: quote(path.relative_to(folder).as_posix()), root=ROOT)


def _difference(path: Path, wanted: str) -> str | None:
    """How a file differs from what the results make, in one line; None where it does not."""
    try:
        given = path.read_bytes()
    except OSError:
        return f"{path} is missing"
    if given == wanted.encode():
        return None
    pairs = zip_longest(given.split(b"\n"), wanted.encode().split(b"\n"))
    where = next(number for number, (old, new) in enumerate(pairs, 1) if old != new)
    return f"{path} is stale: line {where} is not what the results make"


def _others(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The charts and tables that nothing asks for."""
    there = [*(folder / CHARTS).glob("*.svg"), *(folder / TABLES).glob("*.md")]
    return sorted(path for path in there if path not in files and not _is_folder(path))


def _foreign(folder: Path, files: Collection[Path]) -> list[Path]:
    """What lies in the folders of charts and tables, hidden or not, and is neither: published files alone do."""
    own = {*files, *_others(folder, list(files))}
    there = [path for name in (CHARTS, TABLES) for path in (folder / name).rglob("*")]
    return sorted(path for path in there if path not in own and not _is_folder(path))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
