"""Where distillation helps: its gains under the conditions of a registered map, as a table and as sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from odebench.analysis.claims import Claim, ClaimVerdict
from odebench.render.claims import name_of, points_text, seeds_so_far
from odebench.render.markdown_tables import grid

_NAME = re.compile(r"map-(.+)-(clean|robust)-gain")
_KINDS = {"clean": "accuracy", "robust": "robust accuracy"}
_CONDITIONS = (
    (r"noise-(\d+)-clean-teacher", r"\1% wrong labels and a teacher trained on the right ones"),
    (r"noise-(\d+)-noisy-teacher", r"\1% wrong labels and a teacher trained on them too"),
    (r"images-(\d+)", r"\1 train images, as many steps"),
    (r"length-quarter", "a quarter of the epochs"),
    (r"length-half", "half of the epochs"),
    (r"length-double", "twice the epochs"),
    (r"width-(\d+)", r"\1 channels in the student"),
)
"""Names of sections, and what they mean to a reader."""


@dataclass(frozen=True)
class Condition:
    """A condition of the map, in words, with the gains that were run: by what they are gains of."""

    dataset: str
    text: str
    gains: dict[str, Claim]


def conditions(claims: Sequence[Claim]) -> list[Condition]:
    """The conditions under which distillation was tried, in their registered order."""
    found: dict[tuple[str, str], Condition] = {}
    for claim in claims:
        name = _NAME.fullmatch(name_of(claim))
        if name is None or claim.estimate is None:
            continue
        dataset = claim.registered.dataset
        condition = found.setdefault((dataset, name[1]), Condition(dataset, condition_text(name[1]), {}))
        condition.gains[_KINDS[name[2]]] = claim
    return list(found.values())


def map_table(claims: Sequence[Claim]) -> list[str]:
    """A table of the conditions that were run; empty where none was."""
    rows = [
        (each.dataset, each.text, *(_cell(each.gains.get(of)) for of in _KINDS.values())) for each in conditions(claims)
    ]
    heading = ("data set", "condition", *(f"gain in {of}" for of in _KINDS.values()))
    return grid(heading, rows, left=(0, 1, 2, 3)) if rows else []


def where_it_helps(claims: Sequence[Claim]) -> str:
    """The conditions with a supported gain, and those without, in a sentence; empty where none was run."""
    tried = conditions(claims)
    helped = [each for each in tried if any(map(_supported, each.gains.values()))]
    parts = []
    for each in helped:
        gains = ", ".join(
            f"{of} {points_text(claim.estimate)} points"
            for of, claim in each.gains.items()
            if _supported(claim) and claim.estimate
        )
        parts.append(f"on {each.dataset} with {each.text}: {gains}")
    others = [f"{each.dataset} with {each.text}" for each in tried if each not in helped]
    if others:
        parts.append(f"no gain is shown on {', on '.join(others)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def condition_text(name: str) -> str:
    """A condition in words, by the name of its section."""
    for pattern, text in _CONDITIONS:
        if found := re.fullmatch(pattern, name):
            return found.expand(text)
    return name.replace("-", " ")


def _cell(claim: Claim | None) -> str:
    if claim is None or claim.estimate is None:
        return ""
    return f"{points_text(claim.estimate)}, {claim.word.value}{seeds_so_far(claim)}"


def _supported(claim: Claim) -> bool:
    return claim.word is ClaimVerdict.supported
