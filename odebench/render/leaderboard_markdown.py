"""The published leaderboard in Markdown: charts, tables, curves, NFE and claims, each figure with its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from odebench.analysis.claims import Claim
from odebench.io.text import fill
from odebench.leaderboard.grouping import group
from odebench.leaderboard.table import Table
from odebench.protocol.spec import radius
from odebench.render.chart_data import Chart, file_stem, horizon_chart, security_chart, shown_together
from odebench.render.claims import claims_markdown, overview
from odebench.render.markdown_tables import EMPTY, LEGEND, TITLE, escape, grid, horizon_name, item, nfe_text, sections
from odebench.render.summary_table import CAPTION, first_tables, middle_tables, summary, title
from odebench.render.verdict import verdict

CHARTS = "charts"
TABLES = "tables"
PAGE = "index.html"
INTRODUCTION = (
    "Neural ODE image classifiers and their controls under attack. Written by `odebench leaderboard --publish` from "
    "the results beside it; the rules: [docs/protocol.md](../docs/protocol.md). To sort, filter and see images under "
    "attack: open index.html in a browser, or run `odebench leaderboard --serve`."
)
LEADERBOARD_FILE = "LEADERBOARD.md"
CLAIMS_FILE = "CLAIMS.md"
ANSWERS = (
    "Points with 95% intervals; slopes in points per doubling of the horizon T. Each claim was registered before its "
    "data. Details and all other claims: [CLAIMS.md](CLAIMS.md)."
)
MORE = "All radii, attacks and flags, each figure with its file"
FILES = "Registered in [claims.yaml](claims.yaml); `odebench claims --json` lists the result files of each claim."


class _Links:
    """Links of a page in TABLES by number, so that the source of a table stays readable; targets stand at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str, path: Path) -> str:
        target = f"../{quote(path.relative_to(self._folder).as_posix())}"
        return f"[{text}][{self._numbers.setdefault(target, len(self._numbers) + 1)}]"

    def targets(self) -> list[str]:
        return [f"[{number}]: {target}" for target, number in self._numbers.items()]


def charts_of(tables: Sequence[Table]) -> list[tuple[Table, Chart]]:
    """All charts, each with a table of its data set: accuracy against horizon, then security curves."""
    by_data = group(tables, file_stem).values()
    found = [(same[0], draw(same)) for draw in (horizon_chart, security_chart) for same in by_data]
    drawn = [(table, chart) for table, chart in found if chart is not None]
    charts = shown_together([chart for _, chart in drawn])
    return [(table, chart) for (table, _), chart in zip(drawn, charts, strict=True)]


def leaderboard_markdown(
    tables: Sequence[Table],
    claims: Sequence[Claim],
    *,
    folder: Path,
    adversarial: Callable[[str], bool] = lambda _: False,
) -> dict[str, str]:
    """The pages of `folder`, which holds the results and the folder of charts, by file name: LEADERBOARD.md with the
    answers and a table a data set, a page for each data set with all figures, and one for the claims."""
    if not tables:
        return {LEADERBOARD_FILE: f"{TITLE}\n{EMPTY}"}
    charts = {chart.name: chart for _, chart in charts_of(tables)}
    parts = [TITLE, fill(INTRODUCTION), ""]
    if claims:
        answers = verdict(claims, first_tables(tables), adversarial=adversarial)
        parts += ["## The answers", "", *(item(answer, lead=question) for question, answer in answers), ""]
        parts += [*overview(claims), "", fill(ANSWERS), ""]
    pages: dict[str, str] = {}
    for name, same in group(tables, file_stem).items():
        parts += [f"## {escape(name)}", ""]
        chart = charts.get(f"{name}-accuracy")
        missing = f"{escape(same[0].dataset)}: no worst-case result yet, so no picture."
        parts += [missing if chart is None else _image(chart), ""]
        for table in middle_tables(same):
            parts += [f"### {escape(f'{name}: {title(table)}')}", "", *summary(table), ""]
        parts += [
            f"{CAPTION} {MORE}: [{name}.md]({TABLES}/{quote(name)}.md).",
            "",
        ]
        pages[f"{TABLES}/{name}.md"] = _page(name, same, charts.get(f"{name}-security"), _Links(folder))
    parts += ["## How to read the tables", "", fill(LEGEND), ""]
    if claims:
        pages[CLAIMS_FILE] = "\n".join([claims_markdown(claims), FILES, ""])
    return {LEADERBOARD_FILE: "\n".join(parts), **pages}


def _page(name: str, tables: Sequence[Table], chart: Chart | None, link: _Links) -> str:
    """All figures of one data set."""
    parts = [f"# {escape(name)}: all figures", "", "Back to [LEADERBOARD.md](../LEADERBOARD.md).", ""]
    parts += sections(tables, level=2, link=link)
    parts += [*_curves(tables, chart, link), *_nfe(tables, link)]
    parts += ["## How to read the tables", "", fill(LEGEND), ""]
    return "\n".join([*parts, *link.targets(), ""])


def _image(chart: Chart, *, above: str = "") -> str:
    panels = "; ".join(panel.title for row in chart.rows for panel in row)
    alternative = f"{chart.title}. {chart.subtitle}. Panels: {panels}. The figures are in the tables below."
    return f"![{escape(alternative)}]({above}{CHARTS}/{quote(chart.name)}.svg)"


def _curves(tables: Sequence[Table], chart: Chart | None, link: _Links) -> list[str]:
    """Robust accuracy against epsilon: one row per model and horizon, one table per norm."""
    parts = ["## Security curves", ""]
    parts += [_image(chart, above="../"), ""] if chart is not None else []
    for norm, same in group(tables, lambda table: table.norm).items():
        epsilons = [table.epsilon for table in same]
        values: dict[tuple[str, float | None], dict[float, str]] = {}
        for table in same:
            for row in table.rows:
                for horizon, cell in row.cells.items():
                    line = values.setdefault((row.label, horizon), {})
                    path = next(iter(cell.files.values()))
                    line[0.0] = link(f"{100 * cell.clean_accuracy.value:.1f}", path)
                    line[table.epsilon] = link(f"{100 * cell.robust_accuracy.value:.1f}", path)
        lines = [
            (escape(name), horizon_name(horizon), *(line.get(epsilon, "") for epsilon in (0.0, *epsilons)))
            for (name, horizon), line in sorted(values.items(), key=_by_name_and_horizon)
        ]
        heading = ("model", "horizon", "clean %", *(f"robust %, {norm} {radius(epsilon)}" for epsilon in epsilons))
        parts += [*grid(heading, lines, left=(0, 1)), ""]
    return parts


def _nfe(tables: Sequence[Table], link: _Links) -> list[str]:
    """Mean NFE per image, clean and under attack, of the largest result of each model and horizon."""
    rows: dict[str, dict[float | None, str]] = {}
    for table in tables:
        for row in table.rows:
            for horizon, cell in row.cells.items():
                if text := nfe_text(cell):
                    rows.setdefault(row.label, {}).setdefault(horizon, link(text, next(iter(cell.files.values()))))
    if not rows:
        return []
    horizons = sorted({horizon for row in rows.values() for horizon in row if horizon is not None})
    lines = [(escape(name), *(row.get(horizon, "") for horizon in horizons)) for name, row in sorted(rows.items())]
    heading = ("model", *(horizon_name(horizon) for horizon in horizons))
    note = "Mean evaluations of the vector field per image, clean / under attack."
    return ["## NFE", "", note, "", *grid(heading, lines, left=(0,)), ""]


def _by_name_and_horizon(item: tuple[tuple[str, float | None], Mapping[float, str]]) -> tuple[str, bool, float]:
    (name, horizon), _ = item
    return name, horizon is None, horizon or 0.0
