"""The results that a registered claim rests on, found by run key: whole train seeds, and what speaks against others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from odebench.leaderboard.build import speaks_of_settings
from odebench.leaderboard.grouping import group
from odebench.leaderboard.union import StoredResult
from odebench.protocol.registration import ClaimCell, ClaimCells

Found = Mapping[ClaimCell, StoredResult]
"""The result of each cell."""


@dataclass(frozen=True)
class ClaimResults:
    """The results of the train seeds that have every cell; `left_out` seeds lack one, `absent` have none at all.

    `refused` says why the claim is not answered from them, in one line; it is empty where nothing speaks against it.
    """

    cells: Found
    weak: Found
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    absent: tuple[int, ...]
    refused: str


def by_run_key(stored: Sequence[StoredResult]) -> dict[str, StoredResult]:
    """The results by run key; without evaluations that were stored with two different outcomes, which the reader of
    results names as a problem."""
    return {
        run_key: same[0]
        for run_key, same in group(stored, lambda item: item.result.run_key).items()
        if len({item.result.letters for item in same}) == 1
    }


def results_of(asked: ClaimCells, known: Mapping[str, StoredResult]) -> ClaimResults:
    """The results of a claim among those known by run key."""
    claim = asked.claim
    of_seed: dict[int, dict[ClaimCell, StoredResult]] = {seed: {} for seed in claim.train_seeds}
    for cell, run_key in asked.run_keys.items():
        if run_key in known:
            of_seed[cell.seed][cell] = known[run_key]
    count = len(asked.run_keys) // len(claim.train_seeds)
    seeds = tuple(seed for seed, found in of_seed.items() if len(found) == count)
    cells = {cell: item for seed in seeds for cell, item in of_seed[seed].items()}
    weak = {cell: known[key] for cell, key in asked.weak.items() if cell.seed in seeds and key in known}
    every = [item for found in of_seed.values() for item in found.values()]
    return ClaimResults(
        cells=cells,
        weak=weak if len(weak) == len(cells) else {},
        seeds=seeds,
        left_out=tuple(seed for seed, found in of_seed.items() if 0 < len(found) < count),
        absent=tuple(seed for seed, found in of_seed.items() if not found),
        refused=asked.refused or _contradiction(every) or _too_early(asked, every),
    )


def _contradiction(items: Sequence[StoredResult]) -> str:
    """The results that were not found on the same images, in one line."""
    data = group(items, lambda item: item.result.found.dataset_sha256)
    if len(data) < 2:
        return ""
    examples = " and ".join(f"{same[0].path} ({digest[:12]})" for digest, same in list(data.items())[:2])
    return f"results on different images: {examples}; run one of them again on the data of the other"


def _too_early(asked: ClaimCells, items: Sequence[StoredResult]) -> str:
    """That results are older than the registration, in one line."""
    if asked.registered is None or asked.claim.earlier:
        return ""
    early = [item for item in items if datetime.fromisoformat(item.result.created) < asked.registered]
    if not early:
        return ""
    first = min(early, key=lambda item: item.result.created)
    return (
        f"registered {asked.registered:%Y-%m-%d %H:%M} UTC, after {len(early)} of its results (the first {first.path}, "
        f"{first.result.created}); a claim that changes after its data needs a new name and new seeds"
    )


def model_flags(cells: Found, stored: Sequence[StoredResult]) -> tuple[str, ...]:
    """The flags that speak of a model compared, from all results of its weights, horizon and solver."""
    identities = {_identity(item) for item in cells.values()}
    found = {
        f"{flag} ({item.evaluation.model.name})"
        for item in stored
        if item.result.flags and _identity(item) in identities
        for flag in item.result.flags
        if not speaks_of_settings(flag, item)
    }
    return tuple(sorted(found))


def _identity(item: StoredResult) -> tuple[Any, ...]:
    evaluation, found = item.evaluation, item.result.found
    return evaluation.model.name, found.weights_sha256, evaluation.horizon, evaluation.solver
