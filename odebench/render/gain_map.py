"""Gains over the plain Neural ODE: of distillation, of what may replace it, and where it helps: table and sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from odebench.analysis.claims import Claim, ClaimVerdict
from odebench.render.claims import name_of, points_text, seeds_so_far
from odebench.render.markdown_tables import grid

_NAME = re.compile(r"(?:(?P<map>map-)?(?P<section>.+)-)?(?P<kind>clean|robust)-gain")
_KINDS = {"clean": "accuracy", "robust": "robust accuracy"}
USUAL = "distillation as usual"
_CHANGES = {
    "label-smoothing": "label smoothing instead of a teacher",
    "self-distillation": "a teacher of the student's own kind",
}
_CONDITIONS = (
    (r"noise-(\d+)-clean-teacher", r"\1% wrong labels and a teacher trained on the right ones"),
    (r"noise-(\d+)-noisy-teacher", r"\1% wrong labels and a teacher trained on the same labels"),
    (r"images-(\d+)", r"\1 train images (equal steps)"),
    (r"length-quarter", "a quarter of the epochs"),
    (r"length-half", "half of the epochs"),
    (r"length-double", "twice the epochs"),
    (r"width-(\d+)", r"\1 channels in the student"),
)
"""Names of sections, and what they mean to a reader."""


@dataclass(frozen=True)
class Condition:
    """What was compared with the plain model of the same training, in words, with the gains that were run: by what they
    are gains of. It is `mapped` where it is distillation under other circumstances."""

    dataset: str
    text: str
    mapped: bool
    gains: dict[str, Claim]


def conditions(claims: Sequence[Claim]) -> list[Condition]:
    """What was tried, in its registered order: distillation, what may replace it, and where it may help."""
    found: dict[tuple[str, str], Condition] = {}
    for claim in claims:
        name = _NAME.fullmatch(name_of(claim))
        if name is None or claim.estimate is None or not (name["map"] or name["section"] in {None, *_CHANGES}):
            continue
        dataset, section = claim.registered.dataset, name["section"] or ""
        text = condition_text(section) if name["map"] else _CHANGES.get(section, USUAL)
        condition = found.setdefault((dataset, text), Condition(dataset, text, bool(name["map"]), {}))
        condition.gains[_KINDS[name["kind"]]] = claim
    return list(found.values())


def map_table(claims: Sequence[Claim]) -> list[str]:
    """A table of what was tried, with the accuracies of the plain model and of the other; empty where nothing was."""
    rows = [
        (each.dataset, each.text, *(_cell(each.gains.get(of)) for of in _KINDS.values())) for each in conditions(claims)
    ]
    heading = ("data set", "tried", *_KINDS.values())
    return grid(heading, rows, left=(0, 1, 2, 3)) if rows else []


MOST_NAMED = 3
"""So many finished conditions of a data set without an answer are named; more are counted."""


def where_it_helps(claims: Sequence[Claim]) -> str:
    """A sentence each on where distillation helps, hurts, and neither is shown; empty where no condition was run."""
    said: dict[str, list[tuple[str, str]]] = {"It helps": [], "It hurts": [], "Neither is shown": []}
    whole: dict[str, list[str]] = {}
    for each in (one for one in conditions(claims) if one.mapped):
        for how, word in (("It helps", ClaimVerdict.supported), ("It hurts", ClaimVerdict.reversed)):
            if gains := [_gain(of, claim) for of, claim in each.gains.items() if claim.word is word]:
                said[how].append((each.dataset, f"with {each.text} ({', '.join(gains)})"))
        if any(claim.word in DECIDED for claim in each.gains.values()):
            continue
        if why := _unanswered(each):
            said["Neither is shown"].append((each.dataset, f"with {each.text}{why}"))
        else:
            whole.setdefault(each.dataset, []).append(f"with {each.text}")
    for dataset, texts in whole.items():
        told = texts if len(texts) <= MOST_NAMED else [f"under {len(texts)} more conditions"]
        said["Neither is shown"] += [(dataset, text) for text in told]
    return " ".join(f"{how} {_places(where)}." for how, where in said.items() if where)


def _places(where: Sequence[tuple[str, str]]) -> str:
    """Conditions after their data set, which is named once."""
    named = dict.fromkeys(dataset for dataset, _ in where)
    return "; ".join(f"on {name} {', '.join(text for own, text in where if own == name)}" for name in named)


def _unanswered(condition: Condition) -> str:
    """Why there is no answer, where it is not that of a whole study."""
    claims = [claim for claim in condition.gains.values() if claim.word not in _WHOLE or seeds_so_far(claim)]
    words = dict.fromkeys(f"{claim.word.value}{seeds_so_far(claim)}" for claim in claims)
    return f" ({', '.join(words)})" if words else ""


def what_replaces_it(claims: Sequence[Claim]) -> str:
    """What gains without distillation, against the plain model; empty where nothing does."""
    parts = []
    for each in conditions(claims):
        gains = [_gain(of, claim) for of, claim in each.gains.items() if claim.word is ClaimVerdict.supported]
        if gains and each.text in _CHANGES.values():
            parts.append(f"on {each.dataset} {each.text} gives the plain model {', '.join(gains)}")
    return "; ".join(parts)


DECIDED = (ClaimVerdict.supported, ClaimVerdict.reversed)
"""A gain or a loss is shown."""
_WHOLE = (ClaimVerdict.inconclusive, ClaimVerdict.ruled_out)
"""Neither is, by all results registered."""


def _gain(of: str, claim: Claim) -> str:
    assert claim.estimate is not None
    return f"{of} {points_text(claim.estimate)} points{seeds_so_far(claim)}"


def condition_text(name: str) -> str:
    """A condition in words, by the name of its section."""
    for pattern, text in _CONDITIONS:
        if found := re.fullmatch(pattern, name):
            return found.expand(text)
    return name.replace("-", " ")


def _cell(claim: Claim | None) -> str:
    if claim is None or claim.estimate is None:
        return ""
    shares = "".join(f"{100 * share:.1f} → " for share in reversed(claim.shares[:2])).removesuffix(" → ")
    return f"{shares}: {points_text(claim.estimate)}, {claim.word.value}{seeds_so_far(claim)}"
