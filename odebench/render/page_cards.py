"""The panels of the page as plain values: what a model is, what its checks found, what was claimed of it."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from odebench.leaderboard.build import attack_label
from odebench.leaderboard.credit import author_of
from odebench.leaderboard.example_images import ExampleStrip, file_names
from odebench.leaderboard.grouping import group
from odebench.leaderboard.model_card import ClaimedAndMeasured, ModelCard, Provenance
from odebench.leaderboard.table import short_solver
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import radius
from odebench.render.chart_data import file_stem
from odebench.render.markdown_tables import horizon_name
from odebench.render.page_figures import Link, Values
from odebench.result.outcome import FAILED, FOOLED, ROBUST
from odebench.result.schema import Figure, Result

OUTCOMES = {FOOLED: "fooled", FAILED: "solver failed", ROBUST: "robust"}


def model_values(cards: Sequence[ModelCard], provenance: Provenance, link: Link) -> list[Values]:
    """The models by name, each with its address and its cards: one for each data set and setting, the usual first."""
    found = []
    for model, same in group(cards, lambda card: card.row.model).items():
        values = []
        for of_data in group(same, lambda card: file_stem(card.table)).values():
            first, *others = sorted(of_data, key=lambda card: not _is_usual(card))
            results = [item for card in of_data for item in card.results]
            claimed = _claimed(list(provenance.claimed(model, results)), link)
            values += [_card(first, provenance, link) | {"claimed": claimed}]
            values += [_card(card, provenance, link) | {"claimed": None} for card in others]
        found.append({"model": model, "address": f"#model={quote(model, safe='')}", "cards": values})
    return found


def _is_usual(card: ModelCard) -> bool:
    return any(row.identity == card.row.identity for row in card.table.usual)


def _card(card: ModelCard, provenance: Provenance, link: Link) -> Values:
    table, cell = card.table, card.headline
    made = [item.result for item in sorted(cell.results, key=_file_order)]
    commands, count = provenance.commands(made)
    them = f"the {len(made)} results whose union this figure is" if len(made) > 1 else "the result of this figure"
    return {
        "label": card.label,
        "data": file_stem(table),
        "headline": f"{_share(cell.robust_accuracy)} robust at {table.norm} {radius(table.epsilon)}, "
        f"{horizon_name(cell.horizon)}{'' if cell.ranked else ', unranked'}{'' if cell.examined else ', not examined'}",
        "flags": dict(sorted(card.flags.items())),
        "recipe": _recipe(card, provenance.trained(made[0])),
        "commands": commands,
        "made": f"{'These make' if len(commands) > 1 else 'This makes'} {f'{count} of ' * (count < len(made))}{them}",
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


def _share(figure: Figure) -> str:
    value, low, high = (f"{100 * part:.1f}" for part in (figure.value, figure.low, figure.high))
    return f"{value}% [{low}, {high}]"


def _claimed(claims: Sequence[ClaimedAndMeasured], link: Link) -> Values:
    """What an entry claims of a data set, and how many of the figures lie outside the measured intervals."""
    rows = [
        {
            "at": f"{one.attack}, {one.norm} {radius(one.epsilon)}, {horizon_name(one.horizon)}, "
            f"seed {one.train_seed}, {one.n} images",
            "claimed": f"{100 * one.claimed:.1f}%",
            "measured": "" if one.measured is None else _share(one.measured),
            "word": "not measured" if one.agrees is None else "agrees" if one.agrees else "differs",
            "file": None if one.path is None else link(one.path),
        }
        for one in claims
    ]
    words = Counter({True: "agree", False: "differ", None: "not measured"}[one.agrees] for one in claims)
    return {"rows": rows, "said": ", ".join(f"{count} {word}" for word, count in sorted(words.items()))}


def _recipe(card: ModelCard, training: Mapping[str, str]) -> list[tuple[str, str]]:
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
        *training.items(),
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
