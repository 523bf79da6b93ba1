"""Contrasts: the figure of a claim for each train seed and image, summed from the letters of its cells.

A gain is the first arm minus the second in the mean over sections and horizons, a slope the least squares over log2 T.
So there is one number a seed and image, and seeds and images are both samples (odebench.numerics.crossed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from odebench.leaderboard.union import StoredResult
from odebench.numerics.crossed import CrossedMean, Table, crossed_mean
from odebench.protocol.registration import ClaimCell, RegisteredClaim
from odebench.result.outcome import CORRECT, ROBUST

if TYPE_CHECKING:
    import numpy as np

FLOOR, CEILING = 0.02, 0.98

Letters: TypeAlias = Mapping[ClaimCell, "np.ndarray[Any, Any]"]
"""The letters of the images of each cell."""


@dataclass(frozen=True)
class Estimate:
    """A gain in points, or a slope in points per doubling of T, from `seeds` train seeds and `images` images.

    `low` and `high` are the 95% interval and `p` is two-sided, both unadjusted. `more_seeds` and `more_images` are the
    half-widths to expect of twice the seeds, or twice the images.
    """

    points: float
    low: float
    high: float
    p: float
    seeds: int
    images: int
    standard_error: float
    degrees_of_freedom: float
    more_seeds: float
    more_images: float

    @property
    def half_width(self) -> float:
        """Half the width of the 95% interval, in points."""
        return (self.high - self.low) / 2


def estimate_of(mean: CrossedMean) -> Estimate:
    """The estimate that a mean over train seeds and images gives."""
    low, high = mean.interval()
    return Estimate(
        points=round(mean.mean, 10),
        low=low,
        high=high,
        p=mean.p,
        seeds=mean.seeds,
        images=mean.images,
        standard_error=mean.standard_error,
        degrees_of_freedom=mean.degrees_of_freedom,
        more_seeds=mean.half_width_with(seeds=2 * mean.seeds, images=mean.images),
        more_images=mean.half_width_with(seeds=mean.seeds, images=2 * mean.images),
    )


def letters_of(cells: Mapping[ClaimCell, StoredResult], claim: RegisteredClaim) -> Letters:
    """The letters of each cell at the claim's radius, on the claim's images."""
    import numpy as np

    found = {}
    for cell, item in cells.items():
        outcomes = next(each.outcomes for each in item.result.epsilons if each.epsilon == claim.epsilon)
        found[cell] = np.array(list(outcomes[: claim.images]))
    return found


def counted(claim: RegisteredClaim) -> str:
    """The letters that a claim counts."""
    return CORRECT if claim.kind == "clean" else ROBUST


def weights_of(claim: RegisteredClaim) -> dict[tuple[int, int, int], float]:
    """The weight of each arm, section and horizon (by number) in a figure."""
    sections = len(claim.arms[0].sections)
    if claim.kind == "slope":
        xs = [math.log2(horizon) for horizon in claim.arms[0].horizons or claim.horizons]
        spread = sum((x - fmean(xs)) ** 2 for x in xs)
        slopes = [(x - fmean(xs)) / spread / sections for x in xs]
        return {(0, section, at): slope for section in range(sections) for at, slope in enumerate(slopes)}
    horizons = len(claim.arms[0].horizons or claim.horizons)
    share = 1 / sections / horizons
    return {
        (arm, section, at): sign * share
        for arm, sign in ((0, 1), (1, -1))
        for section in range(sections)
        for at in range(horizons)
    }


def measure(letters: Letters, weights: Mapping[tuple[int, int, int], float], letters_counted: str) -> Table:
    """The figure of each train seed (row, in order) and image (column), in points."""
    import numpy as np

    seeds = sorted({cell.seed for cell in letters})
    return np.stack(
        [
            sum(
                100 * weight * np.isin(letters[ClaimCell(*cell, seed)], list(letters_counted))
                for cell, weight in weights.items()
            )
            for seed in seeds
        ]
    )


def gain(letters: Letters, claim: RegisteredClaim) -> Table:
    """The figure of a claim for each train seed and image, in points."""
    return measure(letters, weights_of(claim), counted(claim))


def on_always_correct(letters: Letters, claim: RegisteredClaim) -> Table | None:
    """The figure on the images that every cell gets right; None where they are fewer than two."""
    import numpy as np

    always = np.all([np.isin(found, list(CORRECT)) for found in letters.values()], axis=0)
    if always.sum() < 2:
        return None
    return gain({cell: found[always] for cell, found in letters.items()}, claim)


def interaction(letters: Letters, claim: RegisteredClaim) -> Table | None:
    """The gain in the first section minus that in the second; None where there are not two."""
    if len(claim.arms[0].sections) != 2:
        return None
    signed = {key: 2 * weight * (1 if key[1] == 0 else -1) for key, weight in weights_of(claim).items()}
    return measure(letters, signed, counted(claim))


def estimate(table: Table) -> Estimate:
    """The estimate of a figure of at least two train seeds and images."""
    return estimate_of(crossed_mean(table))


def share_of(letters: Letters, claim: RegisteredClaim, arm: int, horizon: int | None = None) -> float:
    """The share in [0, 1] of an arm that counts, in the mean over its cells (at one horizon, by number)."""
    import numpy as np

    found = [
        float(np.isin(each, list(counted(claim))).mean())
        for cell, each in letters.items()
        if cell.arm == arm and horizon in (None, cell.horizon)
    ]
    return fmean(found)


def limit_of(letters: Letters, claim: RegisteredClaim) -> str:
    """The horizons where every arm is at a floor or a ceiling, in one line; empty where there are none."""
    horizons: Sequence[float] = claim.arms[0].horizons or claim.horizons
    arms = range(len(claim.arms))
    parts = []
    for at, horizon in enumerate(horizons):
        shares = [share_of(letters, claim, arm, at) for arm in arms]
        if max(shares) < FLOOR:
            parts.append(f"floor: under {FLOOR:.0%} at T={horizon:g}")
        elif min(shares) > CEILING:
            parts.append(f"ceiling: over {CEILING:.0%} at T={horizon:g}")
    return "; ".join(parts)
