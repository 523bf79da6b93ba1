"""What the page shows, as plain values for its template: figures, charts, models, claims."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from odebench.analysis.claims import Claim
from odebench.io.canonical_json import digest
from odebench.leaderboard.build import attack_label, build_tables
from odebench.leaderboard.credit import author_of
from odebench.leaderboard.example_images import ExampleStrip, file_names
from odebench.leaderboard.grouping import group
from odebench.leaderboard.model_card import ModelCard, model_cards
from odebench.leaderboard.table import Table, short_solver
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import radius
from odebench.render.chart_data import Chart, file_stem
from odebench.render.claims import INTRODUCTION, PAPER, WORDS, claims_json
from odebench.render.leaderboard_markdown import charts_of
from odebench.render.markdown_tables import attack_names, credit_texts, horizon_name, nfe_text
from odebench.render.page_claims import answer_values, claim_values
from odebench.render.vega import style
from odebench.result.outcome import FAILED, FOOLED, ROBUST
from odebench.result.schema import Figure, Result

UNION = "union of all"
OUTCOMES = {FOOLED: "fooled", FAILED: "solver failed", ROBUST: "robust"}

Link = Callable[[Path], str]
"""The address of a result file, as seen from the page."""
Values = dict[str, Any]
Names = dict[Path, tuple[str, str, str]]
"""Data set, label of the model and anchor of its card, by result file: tables of few results have shorter labels."""


@dataclass(frozen=True)
class PageContent:
    """All that a page shows."""

    stored: tuple[StoredResult, ...]
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]
    strips: tuple[ExampleStrip, ...]

    def sha256(self, folder: Path) -> str:
        """The digest of the results, images and answers shown, and of the results' paths below `folder`."""
        results = [
            [item.path.relative_to(folder).as_posix(), item.result.model_dump(mode="json")] for item in self.stored
        ]
        strips = sorted(strip.sha256 for strip in self.strips)
        answers = claims_json([replace(claim, files=()) for claim in self.claims])
        return digest({"results": sorted(results, key=lambda pair: str(pair[0])), "strips": strips, "claims": answers})


def page_values(content: PageContent, *, link: Link) -> Values:
    """The values of the template, by name."""
    cards = model_cards(content.tables, content.strips)
    names = {
        item.path: (file_stem(card.table), card.label, f"model-{number}")
        for number, card in enumerate(cards, 1)
        for item in card.results
    }
    figures = _figures(content, names, link)
    return {
        "charts": [_chart(chart, number) for number, (_, chart) in enumerate(charts_of(content.tables))],
        "figures": figures,
        "choices": {name: _different(figure[name] for figure in figures) for name in ("data", "threat")},
        "attacks": sorted({figure["attack"] for figure in figures} - {UNION}),
        "union": UNION,
        "notes": dict(sorted({flag: why for figure in figures for flag, why in figure["notes"].items()}.items())),
        "cards": [_card(card, f"model-{number}", link) for number, card in enumerate(cards, 1)],
        "answers": answer_values(content.claims),
        "claims": claim_values(content.claims),
        "texts": {"claims": INTRODUCTION, "words": WORDS, "paper": PAPER},
    }


def panel_key(chart: int, row: int, panel: int) -> str:
    """The name of a panel's place in the page."""
    return f"{chart}-{row}-{panel}"


def _figures(content: PageContent, names: Names, link: Link) -> list[Values]:
    """One row per figure: first the union of all attacks, as the tables have it, then each attack alone."""
    cells = [cell for table in content.tables for row in table.rows for cell in row.cells.values()]
    kept = {item.path: item for cell in cells for item in cell.results}
    found = _rows(content.tables, UNION, names, link)
    for label, items in sorted(group(kept.values(), attack_label).items()):
        found += _rows(build_tables(items)[0], label, names, link)
    return found


def _rows(tables: Sequence[Table], attack: str, names: Names, link: Link) -> list[Values]:
    return [
        {
            **dict(zip(("data", "model", "anchor"), names[cell.results[0].path], strict=True)),
            "threat": f"{table.norm} {radius(table.epsilon)}",
            "epsilon": table.epsilon,
            "horizon": horizon_name(cell.horizon),
            "horizon_value": cell.horizon,
            "attack": attack,
            "attacks": ", ".join(attack_names(cell)) if attack == UNION else f"{attack} alone",
            "credits": credit_texts(cell) if attack == UNION else [],
            "clean": _share(cell.clean_accuracy),
            "robust": _share(cell.robust_accuracy),
            "ranked": cell.ranked or attack != UNION,
            "nfe": nfe_text(cell),
            "nfe_value": cell.nfe_clean,
            "seeds": cell.seeds,
            "n": cell.n,
            "flags": list(cell.flags),
            "notes": dict(cell.flags),
            "file": link(next(iter(cell.files.values()))),
        }
        for table in tables
        for row in table.rows
        for cell in row.cells.values()
    ]


def _share(figure: Figure) -> Values:
    value, low, high = (f"{100 * part:.1f}" for part in (figure.value, figure.low, figure.high))
    return {"value": figure.value, "text": value, "interval": f"[{low}, {high}]"}


def _chart(chart: Chart, number: int) -> Values:
    return {
        "id": f"picture-{number}",
        "title": chart.title,
        "subtitle": chart.subtitle,
        "legend": [
            {"name": name, **dict(zip(("colour", "shape"), style(chart, name), strict=True))} for name in chart.names
        ],
        "rows": [
            [{"key": panel_key(number, place, index), "title": panel.title} for index, panel in enumerate(row)]
            for place, row in enumerate(chart.rows)
        ],
    }


def _card(card: ModelCard, anchor: str, link: Link) -> Values:
    table, cell = card.table, card.headline
    robust = _share(cell.robust_accuracy)
    return {
        "anchor": anchor,
        "label": card.label,
        "data": file_stem(table),
        "headline": f"{robust['text']}% {robust['interval']} robust at {table.norm} {radius(table.epsilon)}, "
        f"{horizon_name(cell.horizon)}{'' if cell.ranked else ', unranked'}{'' if cell.examined else ', not examined'}",
        "flags": dict(sorted(card.flags.items())),
        "recipe": _recipe(card),
        "checks": [
            {
                "id": one.check.id,
                "name": one.check.name,
                "status": one.check.status,
                "counts": ", ".join(f"{status} in {count}" for status, count in one.counts.items()),
                "found": "" if one.check.k is None else f"{one.check.k} of {one.check.n} images",
                "speaks_of": one.check.speaks_of,
                # what to do stands after the colon, and only a flag needs it
                "why": one.check.why.partition(": ")[0] if one.check.status == "pass" else one.check.why,
                "file": link(one.item.path),
            }
            for one in card.checks
        ],
        "files": [_file(item, link) for item in sorted(card.results, key=_file_order)],
        "strip": None if card.strip is None else _strip(card.strip),
    }


def _recipe(card: ModelCard) -> list[tuple[str, str]]:
    """How a model was made and judged, as pairs of a name and a text."""
    results = [item.result for item in card.results]
    evaluations = [result.evaluation for result in results]
    solver = card.row.solver
    trained = _listed(horizon_name(e.train_horizon) for e in evaluations)
    weights = {
        f"{horizon_name(r.evaluation.train_horizon)} seed {_seed(r)}": r.found.weights_sha256[:12] for r in results
    }
    created = sorted(result.created[:10] for result in results)
    arguments = [f"{name} = {json.dumps(value)}" for name, value in card.row.arguments.items()]
    return [
        ("model", card.row.model),
        ("arguments", ", ".join(arguments) or "the model's defaults"),
        ("parameters", _listed(f"{result.found.parameters:,}" for result in results)),
        ("trained at", trained),
        ("evaluated at", _listed(horizon_name(e.horizon) for e in evaluations)),
        ("solver", "none: no field is integrated" if solver is None else f"{short_solver(solver)} ({solver.backend})"),
        ("weights (sha256)", "; ".join(f"{name}: {sha256}" for name, sha256 in sorted(weights.items()))),
        ("attacked with", _listed(sorted(attack_label(item) for item in card.results))),
        ("crafted on", _listed(name for e in evaluations for name in e.attack.sources) or "no other model"),
        (
            "computed with",
            _listed(
                f"odebench {r.found.versions.odebench}, torch {r.found.versions.torch}, "
                f"{r.found.device}, {r.found.threads} threads"
                for r in results
            ),
        ),
        ("written", created[0] if created[0] == created[-1] else f"{created[0]} to {created[-1]}"),
    ]


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(_different(texts))


def _different(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _seed(result: Result) -> str:
    seed = result.evaluation.model.train_seed
    return "" if seed is None else str(seed)


def _file_order(item: StoredResult) -> tuple[Any, ...]:
    e = item.evaluation
    return (
        e.horizon is None,
        e.horizon or 0.0,
        _seed(item.result),
        attack_label(item),
        e.threat_model.norm,
        e.dataset.offset,
        item.path,
    )


def _file(item: StoredResult, link: Link) -> Values:
    evaluation = item.evaluation
    part = evaluation.dataset
    return {
        "href": link(item.path),
        "attack": attack_label(item) + (f" of {author}" if (author := author_of(item)) else ""),
        "norm": evaluation.threat_model.norm,
        "horizon": horizon_name(evaluation.horizon),
        "seed": _seed(item.result),
        "images": f"{part.offset} to {part.offset + part.n - 1}",
        "flags": ", ".join(item.result.flags),
    }


def _strip(strip: ExampleStrip) -> Values:
    examples = strip.examples
    return {
        "said": f"{examples.attack}, {examples.norm} epsilon {radius(examples.epsilon)}",
        "pairs": [
            {
                "index": pair.index,
                "label": pair.label,
                "predicted": "no answer" if pair.predicted is None else pair.predicted,
                "outcome": OUTCOMES[pair.outcome],
                "letter": pair.outcome,
                "felled_by": pair.felled_by,
                "names": file_names(pair),
                "images": ["data:image/png;base64," + base64.b64encode(png).decode() for png in images],
            }
            for pair, images in zip(examples.pairs, strip.images, strict=True)
        ],
    }
