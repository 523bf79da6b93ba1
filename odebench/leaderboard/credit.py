"""Credit for candidates made elsewhere: whose they are, and for which images they alone are adversarial.

Who made them stands in the attack's parameters, which are part of the run key, and in felled_by. How many of them
succeeded is never stored: it changes with every other result of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from pydantic import JsonValue

from odebench.errors import UsageError
from odebench.io.canonical_json import canonical_json
from odebench.leaderboard.union import OutcomeSets, StoredResult, could_lower, merge, outcome_sets
from odebench.result.flags import CANDIDATES
from odebench.result.outcome import FAILED, FOOLED

MAX_NAME_LETTERS = 80
NOBODY = "nobody named"


@dataclass(frozen=True)
class Credit:
    """How many images one author's candidates fooled (`felled`), and no other result did (`alone`), over a cell's
    images and those `seeds` that the candidates were judged on."""

    name: str
    felled: int
    alone: int
    seeds: int


def checked_name(text: str) -> str:
    """The name to credit, with single spaces. Raises UsageError for one that cannot be shown in a line."""
    name = " ".join(text.split())
    if not name or len(name) > MAX_NAME_LETTERS or not name.isprintable():
        raise UsageError(
            f"{text[:MAX_NAME_LETTERS]!a} cannot be credited: a name has 1 to {MAX_NAME_LETTERS} printable "
            "letters; say who made the candidates, such as --author 'A. Reviewer'"
        )
    return name


def shown_name(value: JsonValue) -> str:
    """The name that a result credits as one line of at most 80 printable characters, whatever was written there."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    name = "".join(letter if letter.isprintable() else "?" for letter in text)
    return (name if len(name) <= MAX_NAME_LETTERS else f"{name[: MAX_NAME_LETTERS - 3]}...") or NOBODY


def credits_of(
    seeds: Sequence[tuple[Sequence[StoredResult], OutcomeSets]], images: int, epsilon: float
) -> tuple[Credit, ...]:
    """The credits of one model at `epsilon` over `images`, first those that alone fooled the most images.

    `seeds` holds for each train seed its results and their union. Results of one file are one attack, whoever they
    credit: its authors are credited together, and a copy under another name takes nothing away.
    """
    names = _names([item for stored, _ in seeds for item in stored])
    if not names:
        return ()
    found: dict[str, Credit] = {}
    for stored, outcomes in seeds:
        relevant = [item for item in stored if could_lower(item, epsilon, images)]
        adversarial = _successful(outcomes, epsilon) & images
        for name in sorted({names[_file(item)] for item in relevant if author_of(item)}):
            own = [item for item in relevant if author_of(item) and names[_file(item)] == name]
            others = [item for item in stored if not any(item is one for one in own)]
            felled = adversarial & _successful(_joined(own), epsilon)
            alone = felled & ~_successful(_joined(others), epsilon) if others else felled
            before = found.get(name, Credit(name, 0, 0, 0))
            found[name] = Credit(
                name, before.felled + felled.bit_count(), before.alone + alone.bit_count(), before.seeds + 1
            )
    return tuple(sorted(found.values(), key=lambda credit: (-credit.alone, -credit.felled, credit.name)))


def author_of(item: StoredResult) -> str | None:
    """The name that a result of candidates credits; None for every other attack."""
    attack = item.evaluation.attack
    return shown_name(attack.parameters.get("credit")) if attack.name == CANDIDATES else None


def can_be_judged_anew(item: StoredResult) -> bool:
    """Whether others can find a result again: not where candidates were made elsewhere and have no address."""
    found = item.result.found.candidates
    return author_of(item) is None or (found is not None and found.address is not None)


def _names(stored: Sequence[StoredResult]) -> dict[str, str]:
    """All the authors that results credit, by file of candidates."""
    named: dict[str, set[str]] = {}
    for item in stored:
        if author := author_of(item):
            named.setdefault(_file(item), set()).add(author)
    return {file: " and ".join(sorted(names)) for file, names in named.items()}


def _file(item: StoredResult) -> str:
    return canonical_json(item.evaluation.attack.parameters.get("file_sha256"))


def _joined(stored: Sequence[StoredResult]) -> OutcomeSets:
    return reduce(merge, (outcome_sets(item.result) for item in stored))


def _successful(outcomes: OutcomeSets, epsilon: float) -> int:
    """The images on which an attack succeeded at `epsilon`."""
    found = outcomes.at(epsilon)
    return found[FOOLED] | found[FAILED]
