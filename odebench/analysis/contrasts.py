"""Contrasts: a figure summed from the cells that one claim compares, paired by image and train seed.

Every figure is a sum over cells with fixed weights: a gain is student minus baseline in the mean over horizons, a slope
the least squares over log2 T. So there is one number per image and seed, and images are resampled jointly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from odebench.analysis.comparable_cells import CellKey, ComparableCells
from odebench.leaderboard.union import StoredResult
from odebench.numerics.statistics import bootstrap, student, student_p

if TYPE_CHECKING:
    import numpy as np

MIN_SEEDS, MIN_IMAGES = 2, 100
FLOOR, CEILING = 0.02, 0.98

Kind = Literal["clean", "robust", "slope"]
Array: TypeAlias = "np.ndarray[Any, Any]"
CellOutcomes: TypeAlias = Mapping[CellKey, "np.ndarray[Any, Any]"]
Weights: TypeAlias = Mapping[tuple[str, float], float]


@dataclass(frozen=True)
class Estimate:
    """A gain in points, or a slope in points per doubling of T: its 95% interval and one-sided p, both unadjusted.

    There are two intervals and two p, over resampled images and over train seeds: the wider interval and the larger p
    count, and `interval_of` tells which interval it is. With fewer than two seeds the interval is that of the images,
    and p is null. `images` is the number of images.
    """

    points: float
    low: float
    high: float
    interval_of: Literal["images", "seeds"]
    p: float | None
    images: int


@dataclass(frozen=True)
class ComparedCells:
    """The cells that a claim compares: of `seeds` that have them all (`left_out`: others), on `images` from `first`
    on."""

    comparable: ComparableCells
    models: tuple[str, ...]
    horizons: tuple[float, ...]
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    first: int
    images: int

    @property
    def keys(self) -> list[CellKey]:
        return [CellKey(*key) for key in sorted(_product(self.models, self.horizons, self.seeds))]


def compared_cells(comparable: ComparableCells, models: tuple[str, ...]) -> ComparedCells | None:
    """The cells at the horizons that all models have, of the seeds with all cells; None without such a horizon."""
    of_model = {model: {key.horizon for key in comparable.cells if key.model == model} for model in models}
    horizons = tuple(sorted(set.intersection(*of_model.values())))
    if not horizons:
        return None
    seeds = sorted({key.seed for key in comparable.cells if key.model in models})
    whole = tuple(seed for seed in seeds if _is_whole(comparable, models, horizons, seed))
    ranges = [image_range(comparable.cells[CellKey(*key)]) for key in _product(models, horizons, whole)]
    first = max((start for start, _ in ranges), default=0)
    last = min((end for _, end in ranges), default=0)
    left_out = tuple(seed for seed in seeds if seed not in whole)
    return ComparedCells(comparable, models, horizons, whole, left_out, first, max(0, last - first))


def _is_whole(comparable: ComparableCells, models: Sequence[str], horizons: Sequence[float], seed: int) -> bool:
    """Whether a seed has every cell, and at each horizon all models were attacked from the same sources."""
    for horizon in horizons:
        cells = [comparable.cells.get(CellKey(model, horizon, seed)) for model in models]
        sources = {cell.evaluation.attack.sources for cell in cells if cell is not None}
        if None in cells or len(sources) != 1:
            return False
    return True


def missing_of(compared: ComparedCells, kind: Kind) -> str:
    """What is missing for an answer, in one line; empty where nothing is."""
    parts = []
    if len(compared.seeds) < MIN_SEEDS:
        lacking = f" ({count(len(compared.left_out), 'other')} without all cells)" if compared.left_out else ""
        parts.append(
            f"{count(len(compared.seeds), 'train seed')} with every cell{lacking}, at least {MIN_SEEDS} needed"
        )
    if kind == "slope" and len(compared.horizons) < 2:
        parts.append(f"results at T={compared.horizons[0]:g} alone, a slope needs two horizons")
    if compared.seeds and compared.images < MIN_IMAGES:
        parts.append(f"{count(compared.images, 'image')} in common, at least {MIN_IMAGES} needed")
    return "; ".join(parts)


def cell_outcomes(compared: ComparedCells) -> CellOutcomes:
    """The outcomes of every cell on the images that all cells share."""
    import numpy as np

    found = {}
    for key in compared.keys:
        item = compared.comparable.cells[key]
        start = compared.first - item.evaluation.dataset.offset
        outcomes = next(i.outcomes for i in item.result.epsilons if i.epsilon == compared.comparable.epsilon)
        found[key] = np.array(list(outcomes[start : start + compared.images]))
    return found


def weights_of(kind: Kind, models: tuple[str, ...], horizons: Sequence[float]) -> dict[tuple[str, float], float]:
    """The weight of each model and horizon in a figure: a mean over horizons, or least squares over log2 T."""
    if kind == "slope":
        xs = [math.log2(horizon) for horizon in horizons]
        spread = sum((x - fmean(xs)) ** 2 for x in xs)
        (model,) = models
        return {(model, horizon): (x - fmean(xs)) / spread for horizon, x in zip(horizons, xs, strict=True)}
    distilled, baseline = models
    share = 1 / len(horizons)
    return {(m, h): sign * share for m, sign in ((distilled, 1), (baseline, -1)) for h in horizons}


def measure(outcomes: CellOutcomes, weights: Weights, seeds: Sequence[int], counted: str) -> Array:
    """The figure of each seed (row) and image (column), in points; `counted` are the outcomes that count."""
    import numpy as np

    return np.stack(
        [
            sum(
                100 * weight * np.isin(outcomes[CellKey(model, horizon, seed)], list(counted))
                for (model, horizon), weight in weights.items()
            )
            for seed in seeds
        ]
    )


def estimate(measured: Array, *, draws: int = 10_000) -> Estimate:
    """The mean of what `measure` returns, with its interval and p."""
    low, high, p = bootstrap(measured.mean(axis=0).tolist(), draws=draws)
    by_seed = measured.mean(axis=1).tolist()
    interval_of: Literal["images", "seeds"] = "images"
    if len(by_seed) > 1:
        seeds_low, seeds_high = student(by_seed)
        if seeds_high - seeds_low > high - low:
            low, high, interval_of = seeds_low, seeds_high, "seeds"
    value = round(fmean(by_seed), 10)
    larger = max(p, student_p(by_seed)) if len(by_seed) > 1 else None
    return Estimate(value, low, high, interval_of, larger, int(measured.shape[1]))


def relative_gain(outcomes: CellOutcomes, models: tuple[str, ...], counted: str) -> float | None:
    """The gain of the first model relative to the share of the second; None where that is 0."""
    distilled, baseline = (_mean_share(outcomes, model, counted) for model in models)
    return distilled / baseline - 1 if baseline else None


def _mean_share(outcomes: CellOutcomes, model: str, counted: str, horizon: float | None = None) -> float:
    import numpy as np

    return fmean(
        float(np.isin(found, list(counted)).mean())
        for key, found in outcomes.items()
        if key.model == model and horizon in (None, key.horizon)
    )


def limit_of(outcomes: CellOutcomes, compared: ComparedCells, counted: str) -> str:
    """The horizons where every model compared is at a floor or a ceiling, in one line; empty where there are none."""
    shares = {
        horizon: [_mean_share(outcomes, model, counted, horizon) for model in compared.models]
        for horizon in compared.horizons
    }
    floors = [f"T={horizon:g}" for horizon, found in shares.items() if max(found) < FLOOR]
    ceilings = [f"T={horizon:g}" for horizon, found in shares.items() if min(found) > CEILING]
    parts = [f"floor: under {FLOOR:.0%} in every model compared at {', '.join(floors)}"] if floors else []
    parts += [f"ceiling: over {CEILING:.0%} in every model compared at {', '.join(ceilings)}"] if ceilings else []
    return "; ".join(parts)


def _product(models: Sequence[str], horizons: Sequence[float], seeds: Sequence[int]) -> list[tuple[str, float, int]]:
    return [(model, horizon, seed) for model in models for horizon in horizons for seed in seeds]


def image_range(item: StoredResult) -> tuple[int, int]:
    """The first image of a result in the data set's order, and the one after its last."""
    dataset = item.evaluation.dataset
    return dataset.offset, dataset.offset + dataset.n


def count(number: int, noun: str) -> str:
    """A number with its noun: "no image", "1 image", "2 images"."""
    return f"{number or 'no'} {noun}{'s' * (number > 1)}"
