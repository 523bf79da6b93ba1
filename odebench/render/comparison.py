"""Differences between two sets of results, as text in 80 columns and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from odebench.analysis.comparison import ComparedPair, Difference, EpsilonDifference, PairedChange
from odebench.io.text import fill
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import radius
from odebench.render.markdown_tables import grid, horizon_of

LISTED = 10
"""So many files that one side alone has are listed."""


def difference_text(found: Difference, first: str, second: str) -> str:
    """What differs between two sets of results of these names; pairs with the same letters are only counted."""
    differing = [pair for pair in found.pairs if pair.changed or not pair.same_evaluation]
    same = len(found.pairs) - len(differing)
    parts = [f"A: {first}", f"B: {second}", "", f"{_evaluations(same)} with the same letters in both"]
    parts += [f"{_evaluations(len(differing))} that differ{'' if len(differing) > 1 else 's'}"] if differing else []
    for pair in differing:
        parts += ["", *_pair(pair)]
    for name, only in (("A", found.only_first), ("B", found.only_second)):
        if only:
            parts += ["", f"{_evaluations(len(only))} in {name} alone:", *(f"- {item.path}" for item in only[:LISTED])]
            parts += [f"- and {len(only) - LISTED} more; --json lists all"] if len(only) > LISTED else []
    if differing:
        parts += [
            "",
            fill(
                "Figures are percentages of the images that both judged; B - A is in points with its paired 95% "
                "interval over images (Bonett and Price 2012). Letters: r>f were robust in A and are fooled in B."
            ),
        ]
    return "\n".join([*parts, ""])


def difference_json(found: Difference) -> str:
    """The differences as one JSON object, shares in [0, 1]."""
    record = {
        "pairs": [_record(pair) for pair in found.pairs],
        "only_first": [item.path.as_posix() for item in found.only_first],
        "only_second": [item.path.as_posix() for item in found.only_second],
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _pair(pair: ComparedPair) -> list[str]:
    one, other = _title(pair.first), _title(pair.second)
    titles = [one] if one == other else [f"A: {one}", f"B: {other}"]
    weights = [] if pair.same_weights else ["other weights" if one == other else "two models"]
    why = [] if pair.same_evaluation or weights else [f"another {' and '.join(_differing(pair)) or 'evaluation'}"]
    lines = [
        (
            radius(item.epsilon),
            str(item.images),
            *(f"{100 * change.first.value:.1f} > {100 * change.second.value:.1f}" for change in _changes(item)),
            f"{_points(item.robust_accuracy)}",
        )
        for item in pair.epsilons
    ]
    table = grid(("epsilon", "images", "clean %", "robust %", "robust B - A"), lines, left=())
    letters = [
        f"letters at {radius(item.epsilon)}: " + ", ".join(f"{kind} {n}" for kind, n in item.letters.items())
        for item in pair.epsilons
        if item.letters
    ]
    clean = pair.epsilons[0].clean_accuracy
    return [
        *(fill(title) for title in titles),
        *(f"({note})" for note in [*weights, *why]),
        "",
        *table,
        "",
        *([f"clean B - A: {_points(clean)}"] if clean.first != clean.second else []),
        *(fill(line) for line in letters or ["no letter differs"]),
    ]


def _differing(pair: ComparedPair) -> list[str]:
    """What differs between the two evaluations, in the words of the titles."""
    one, other = (item.evaluation for item in (pair.first, pair.second))
    names = ("attack", "horizon", "train_horizon", "solver", "dataset", "threat_model", "chunk", "precision")
    words = {"dataset": "set of images", "threat_model": "set of epsilons"}
    differing = [name for name in names if getattr(one, name) != getattr(other, name)]
    return [words.get(name, name.replace("_", " ")) for name in differing]


def _title(item: StoredResult) -> str:
    evaluation = item.evaluation
    arguments = [f"{name}={value}" for name, value in sorted(evaluation.model.arguments.items())]
    horizon = [] if evaluation.horizon is None else [horizon_of(evaluation)]
    solver = [] if evaluation.solver is None else [str(evaluation.solver)]
    data = f"{evaluation.dataset.name} ({evaluation.dataset.split})"
    attack = f"{evaluation.attack.name} in {evaluation.threat_model.norm}"
    return ", ".join([f"{evaluation.model.name} on {data}", attack, *horizon, *solver, *arguments])


def _record(pair: ComparedPair) -> dict[str, Any]:
    return {
        "first": pair.first.path.as_posix(),
        "second": pair.second.path.as_posix(),
        "same_evaluation": pair.same_evaluation,
        "same_weights": pair.same_weights,
        "changed": pair.changed,
        "epsilons": [
            {
                **vars(item),
                "clean_accuracy": _change(item.clean_accuracy),
                "robust_accuracy": _change(item.robust_accuracy),
            }
            for item in pair.epsilons
        ],
    }


def _change(change: PairedChange) -> dict[str, Any]:
    return {**vars(change), "first": change.first.value, "second": change.second.value}


def _changes(item: EpsilonDifference) -> Sequence[PairedChange]:
    return item.clean_accuracy, item.robust_accuracy


def _points(change: PairedChange) -> str:
    value, low, high = (100 * part for part in (change.difference, change.low, change.high))
    return f"{value:+.1f} [{low:.1f}, {high:.1f}]"


def _evaluations(count: int) -> str:
    return f"{count} evaluation{'s' * (count != 1)}"
