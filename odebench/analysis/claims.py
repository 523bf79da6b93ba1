"""The registered claims, answered from results alone, by the rules and in the words of docs/protocol.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from odebench.analysis import contrasts
from odebench.analysis.claim_results import ClaimResults, by_run_key, model_flags, results_of
from odebench.analysis.contrasts import Estimate
from odebench.leaderboard.grouping import group
from odebench.leaderboard.union import StoredResult
from odebench.numerics.crossed import CrossedMean, crossed_mean
from odebench.numerics.statistics import holm
from odebench.protocol.registration import LEAST_SEEDS, ClaimCells, RegisteredClaim

LEVEL = 0.05


class ClaimVerdict(str, Enum):
    """The answer to a claim: the first of these that fits."""

    not_run = "not run"
    too_few_seeds = "too few seeds"
    flagged = "flagged"
    supported = "supported"
    reversed = "reversed"
    masked = "masked"
    ruled_out = "ruled out"
    inconclusive = "inconclusive"


@dataclass(frozen=True)
class Beside:
    """A figure beside a claim, such as the same on the images that every cell gets right."""

    name: str
    estimate: Estimate


@dataclass(frozen=True)
class Claim:
    """A registered claim with its answer and what it rests on.

    `why` tells in one line how the word came about. `adjusted_p` is Holm's over the family. `shares` are the shares in
    [0, 1] of the arms that count, in the mean over their cells; `relative` is the gain relative to the second. `seeds`
    have every cell, `left_out` some, `absent` none.
    """

    registered: RegisteredClaim
    word: ClaimVerdict = ClaimVerdict.not_run
    why: str = ""
    estimate: Estimate | None = None
    adjusted_p: float | None = None
    shares: tuple[float, ...] = ()
    relative: float | None = None
    attack: str | None = None
    seeds: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    beside: tuple[Beside, ...] = ()
    flags: tuple[str, ...] = ()
    dataset_sha256: str | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Draft:
    """A claim before the correction for its family. `weak` is the gain under the weak attack, and `flattered` the
    paired difference of that gain and the claim's."""

    claim: Claim
    mean: CrossedMean | None = None
    limit: str = ""
    weak: CrossedMean | None = None
    flattered: CrossedMean | None = None

    @property
    def p(self) -> float:
        return 1.0 if self.mean is None or len(self.claim.seeds) < LEAST_SEEDS else self.mean.p


def claims_of(asked: Sequence[ClaimCells], stored: Sequence[StoredResult]) -> list[Claim]:
    """The answers to the registered claims, in their order."""
    known = by_run_key(stored)
    drafts = [_draft(one, results_of(one, known), stored) for one in asked]
    answered: dict[str, Claim] = {}
    for same in group(drafts, lambda draft: draft.claim.registered.family).values():
        adjusted = holm([draft.p for draft in same])
        under_weak = holm([1.0 if draft.weak is None else draft.weak.p for draft in same])
        for draft, p, weak_p in zip(same, adjusted, under_weak, strict=True):
            answered[draft.claim.registered.name] = _answer(draft, p, weak_p, family=len(same))
    return [answered[one.claim.name] for one in asked]


def _draft(asked: ClaimCells, results: ClaimResults, stored: Sequence[StoredResult]) -> _Draft:
    claim = Claim(asked.claim, seeds=results.seeds, left_out=results.left_out, absent=results.absent)
    if results.refused:
        return _Draft(replace(claim, why=results.refused, seeds=()))
    if len(results.seeds) < 2:
        return _Draft(replace(claim, why=_absence(claim)))
    registered = asked.claim
    letters = contrasts.letters_of(results.cells, registered)
    mean = crossed_mean(contrasts.gain(letters, registered))
    beside = [
        Beside(name, contrasts.estimate(table))
        for name, table in (
            ("on the images that every cell gets right", contrasts.on_always_correct(letters, registered)),
            (f"{' minus '.join(registered.arms[0].sections)}", contrasts.interaction(letters, registered)),
        )
        if table is not None and (registered.kind != "clean" or not name.startswith("on the images"))
    ]
    shares = tuple(contrasts.share_of(letters, registered, arm) for arm in range(len(registered.arms)))
    first = next(iter(results.cells.values()))
    claim = replace(
        claim,
        estimate=contrasts.estimate_of(mean),
        shares=shares,
        relative=shares[0] / shares[1] - 1 if len(shares) == 2 and shares[1] else None,
        attack=first.evaluation.attack.name,
        beside=tuple(beside),
        flags=model_flags(results.cells, stored),
        dataset_sha256=first.result.found.dataset_sha256,
        files=tuple(dict.fromkeys(item.path for item in results.cells.values())),
    )
    limit = "" if registered.kind == "clean" else contrasts.limit_of(letters, registered)
    if not results.weak:
        return _Draft(claim, mean, limit)
    weak = contrasts.gain(contrasts.letters_of(results.weak, registered), registered)
    flattered = crossed_mean(weak - contrasts.gain(letters, registered))
    return _Draft(claim, mean, limit, crossed_mean(weak), flattered)


def _absence(claim: Claim) -> str:
    """Why there is no figure, in one line."""
    registered = claim.registered
    if not claim.seeds and not claim.left_out:
        return f"no results of protocol {registered.protocol} yet"
    found = f"{len(claim.seeds)} of {len(registered.train_seeds)} train seeds with every cell"
    return f"{found}; odebench sweep {registered.protocol} makes the others"


def _answer(draft: _Draft, p: float, weak_p: float, *, family: int) -> Claim:
    """The claim with its word; `p` and that under the weak attack are adjusted for a family of so many claims."""
    claim, mean = draft.claim, draft.mean
    if mean is None:
        return claim
    word, why = _word(draft, mean, p, weak_p, family)
    return replace(claim, word=word, why=why, adjusted_p=p if len(claim.seeds) >= LEAST_SEEDS else None)


def _word(draft: _Draft, mean: CrossedMean, p: float, weak_p: float, family: int) -> tuple[ClaimVerdict, str]:
    """The first word that fits, and how it came about."""
    claim, margin = draft.claim, draft.claim.registered.margin
    low, high = mean.interval()
    upper = mean.interval(1 - LEVEL / family)[1]
    if len(claim.seeds) < LEAST_SEEDS:
        return ClaimVerdict.too_few_seeds, f"{len(claim.seeds)} train seeds, a word needs {LEAST_SEEDS}"
    if claim.flags:
        return ClaimVerdict.flagged, f"flagged: {', '.join(claim.flags)}"
    if draft.limit:
        return ClaimVerdict.inconclusive, draft.limit
    if p < LEVEL and mean.mean > 0:
        below = f", below the margin of {margin:g}" if high < margin else ""
        return ClaimVerdict.supported, f"adjusted p below {LEVEL:g}{below}"
    if p < LEVEL:
        return ClaimVerdict.reversed, f"adjusted p below {LEVEL:g}, and the gain is negative"
    if _is_masked(draft, weak_p):
        return ClaimVerdict.masked, f"supported under {_weak_name(draft)} alone, which the stronger attack takes back"
    if upper < margin:
        return ClaimVerdict.ruled_out, f"at most {upper:+.2g} points, the margin is {margin:g}"
    return ClaimVerdict.inconclusive, f"between {low:+.2g} and {high:+.2g} points, the margin is {margin:g}"


def _is_masked(draft: _Draft, weak_p: float) -> bool:
    """Whether the weak attack alone supports the claim, and by more than the claim's own attack."""
    weak, flattered = draft.weak, draft.flattered
    if weak is None or flattered is None:
        return False
    return weak_p < LEVEL and weak.mean > 0 and flattered.p < LEVEL and flattered.mean > 0


def _weak_name(draft: _Draft) -> str:
    weak = draft.claim.registered.weak
    return "" if weak is None else weak.name
