"""Where a published figure comes from: the command that makes it again, and what its entry claims. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from odebench.errors import OdebenchError
from odebench.evaluation.model_reference import ModelReference
from odebench.leaderboard.model_card import ClaimedAndMeasured, Provenance
from odebench.leaderboard.union import StoredResult
from odebench.model.registry import MODELS
from odebench.result.schema import Result
from odebench.submission.claims import is_about
from odebench.submission.entry import ENTRY_FILE, ClaimedFigure, Entry, read_entry
from odebench.submission.run_command import joined, run_command
from odebench.submission.submitted_model import find_model
from odebench.submission.training_words import trained_how


def provenance(entries: Path | None) -> Provenance:
    """The provenance of results whose entries lie in the folder `entries`; None where there are none."""
    problems: list[OdebenchError] = []
    entry_of = cache(partial(_entry, entries, problems))
    model_of = cache(partial(_model, entries))
    return Provenance(
        partial(_commands, model_of),
        partial(_trained, model_of),
        partial(_claimed, entry_of),
        lambda model: _adversarial(entry_of(model)),
        problems,
    )


def _adversarial(entry: Entry | None) -> bool:
    return entry is not None and entry.training.get("adversary", "none") != "none"


def _commands(model_of: Callable[[str], ModelReference], results: Sequence[Result]) -> tuple[list[str], int]:
    found = []
    for result in results:
        with suppress(OdebenchError):
            found.append(run_command(result, model_of(result.evaluation.model.name)))
    return [shlex.join(words) for words in joined(found)], len(found)


def _trained(model_of: Callable[[str], ModelReference], result: Result) -> dict[str, str]:
    try:
        return trained_how(model_of(result.evaluation.model.name), result)
    except OdebenchError:
        return {}


def _model(entries: Path | None, name: str) -> ModelReference:
    """A registered model, else that of the entry in `entries`, and in no other folder: what a page says must not hang
    on the machine that makes it."""
    return find_model(name if name in MODELS.entries() else f"{entries}/{name}")


def _entry(entries: Path | None, problems: list[OdebenchError], model: str) -> Entry | None:
    if entries is None or not (entries / model / ENTRY_FILE).is_file():
        return None
    try:
        return read_entry(entries / model)
    except OdebenchError as error:
        problems.append(error)
        return None


def _claimed(
    entry_of: Callable[[str], Entry | None], model: str, results: Sequence[StoredResult]
) -> Iterator[ClaimedAndMeasured]:
    entry = entry_of(model)
    for claim in entry.claims if entry is not None else ():
        if not any(item.evaluation.dataset.name == claim.dataset for item in results):
            continue
        item = next((item for item in results if entry is not None and _is_about(claim, entry, item)), None)
        found = None if item is None else next(e for e in item.result.epsilons if e.epsilon == claim.epsilon)
        yield ClaimedAndMeasured(
            attack=claim.attack,
            norm=claim.norm,
            epsilon=claim.epsilon,
            horizon=claim.horizon,
            train_seed=claim.train_seed,
            n=claim.n,
            claimed=claim.robust_accuracy,
            measured=None if found is None else found.figures.robust_accuracy,
            path=None if item is None else item.path,
        )


def _is_about(claim: ClaimedFigure, entry: Entry, item: StoredResult) -> bool:
    if claim.attack != item.evaluation.attack.name or claim.n != item.evaluation.dataset.n:
        return False  # the cheapest first: an entry claims hundreds of figures
    try:
        return is_about(claim, entry, item.evaluation)
    except OdebenchError:
        return False
