"""Contrasts: a figure summed from the cells that one claim compares, paired by image and train seed.

Every figure is a sum over cells with fixed weights: a gain is student minus baseline in the mean over horizons, a slope
the least squares over log2 T. So one measure an image and seed holds all of it, and images are drawn again jointly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from odebench.analysis.sections import CellKey, ComparableCells
from odebench.leaderboard.union import StoredResult
from odebench.numerics.statistics import bootstrap, student, student_p

if TYPE_CHECKING:
    import numpy as np

MIN_SEEDS, MIN_IMAGES = 2, 100
FLOOR, CEILING = 0.02, 0.98
CORRECT = "fxr"
ROBUST = "r"

Kind = Literal["clean", "robust", "slope"]
Array: TypeAlias = "np.ndarray[Any, Any]"
Letters: TypeAlias = Mapping[CellKey, "np.ndarray[Any, Any]"]
Weights: TypeAlias = Mapping[tuple[str, float], float]


@dataclass(frozen=True)
class Estimate:
    """A gain in points, or a slope in points a doubling of T: its 95% interval and one-sided p, both unadjusted.

    The wider interval and the larger p of the two that images drawn again and train seeds give, each alone;
    `interval_of` says whose the interval is. Over fewer than two seeds it is that of the images, and p is null.
    `images` are all that entered.
    """

    value: float
    low: float
    high: float
    p: float | None
    images: int
    interval_of: Literal["images", "seeds"]


@dataclass(frozen=True)
class Frame:
    """The cells that a claim compares: seeds that have them all, and the images that these cells share."""

    section: ComparableCells
    models: tuple[str, ...]
    horizons: tuple[float, ...]
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    first: int
    images: int

    @property
    def keys(self) -> list[CellKey]:
        """All cells, rising."""
        return [CellKey(*key) for key in sorted(_product(self.models, self.horizons, self.seeds))]


def frame_of(section: ComparableCells, models: tuple[str, ...]) -> Frame | None:
    """The horizons that each of the models has, and the seeds with all their cells; None without a horizon."""
    of_model = {model: {key.horizon for key in section.cells if key.model == model} for model in models}
    horizons = tuple(sorted(set.intersection(*of_model.values())))
    if not horizons:
        return None
    seeds = sorted({key.seed for key in section.cells if key.model in models})
    whole = tuple(seed for seed in seeds if _is_whole(section, models, horizons, seed))
    ranges = [image_range(section.cells[CellKey(*key)]) for key in _product(models, horizons, whole)]
    first = max((start for start, _ in ranges), default=0)
    last = min((end for _, end in ranges), default=0)
    left_out = tuple(seed for seed in seeds if seed not in whole)
    return Frame(section, models, horizons, whole, left_out, first, max(0, last - first))


def _is_whole(section: ComparableCells, models: Sequence[str], horizons: Sequence[float], seed: int) -> bool:
    """Whether a seed has every cell, and in each horizon all models faced candidates of the same sources."""
    for horizon in horizons:
        cells = [section.cells.get(CellKey(model, horizon, seed)) for model in models]
        sources = {cell.result.evaluation.attack.sources for cell in cells if cell is not None}
        if None in cells or len(sources) != 1:
            return False
    return True


def missing_of(frame: Frame, kind: Kind) -> str:
    """What is missing for any answer, in one line; empty where nothing is."""
    parts = []
    if len(frame.seeds) < MIN_SEEDS:
        lacking = f" ({count(len(frame.left_out), 'other')} without all cells)" if frame.left_out else ""
        parts.append(f"{count(len(frame.seeds), 'train seed')} with every cell{lacking}, at least {MIN_SEEDS} needed")
    if kind == "slope" and len(frame.horizons) < 2:
        parts.append(f"results at T={frame.horizons[0]:g} alone, a slope needs two horizons")
    if frame.seeds and frame.images < MIN_IMAGES:
        parts.append(f"{count(frame.images, 'image')} in common, at least {MIN_IMAGES} needed")
    return "; ".join(parts)


def cell_letters(frame: Frame) -> Letters:
    """The letters of every cell on the images of the frame."""
    import numpy as np

    found = {}
    for key in frame.keys:
        item = frame.section.cells[key]
        start = frame.first - item.result.evaluation.dataset.offset
        outcomes = next(i.outcomes for i in item.result.epsilons if i.epsilon == frame.section.epsilon)
        found[key] = np.array(list(outcomes[start : start + frame.images]))
    return found


def weights_of(kind: Kind, models: tuple[str, ...], horizons: Sequence[float]) -> dict[tuple[str, float], float]:
    """How a figure is summed from the cells: means over the horizons, or least squares over log2 T."""
    if kind == "slope":
        xs = [math.log2(horizon) for horizon in horizons]
        spread = sum((x - fmean(xs)) ** 2 for x in xs)
        (model,) = models
        return {(model, horizon): (x - fmean(xs)) / spread for horizon, x in zip(horizons, xs, strict=True)}
    distilled, baseline = models
    share = 1 / len(horizons)
    return {(m, h): sign * share for m, sign in ((distilled, 1), (baseline, -1)) for h in horizons}


def measure(letters: Letters, weights: Weights, seeds: Sequence[int], counted: str) -> Array:
    """What a claim measures, in points: a row a seed, a column an image."""
    import numpy as np

    return np.stack(
        [
            sum(
                100 * weight * np.isin(letters[CellKey(model, horizon, seed)], list(counted))
                for (model, horizon), weight in weights.items()
            )
            for seed in seeds
        ]
    )


def estimate(measured: Array, *, draws: int = 10_000) -> Estimate:
    """The figure that `measure` measured, with its interval and p."""
    low, high, p = bootstrap(measured.mean(axis=0).tolist(), draws=draws)
    by_seed = measured.mean(axis=1).tolist()
    interval_of: Literal["images", "seeds"] = "images"
    if len(by_seed) > 1:
        seeds_low, seeds_high = student(by_seed)
        if seeds_high - seeds_low > high - low:
            low, high, interval_of = seeds_low, seeds_high, "seeds"
    value = round(fmean(by_seed), 10)
    larger = max(p, student_p(by_seed)) if len(by_seed) > 1 else None
    return Estimate(value, low, high, larger, int(measured.shape[1]), interval_of)


def relative_gain(letters: Letters, models: tuple[str, ...], counted: str) -> float | None:
    """The gain of the first model as a share of what the second has; None where that has nothing."""
    distilled, baseline = (_mean_share(letters, model, counted) for model in models)
    return distilled / baseline - 1 if baseline else None


def _mean_share(letters: Letters, model: str, counted: str, horizon: float | None = None) -> float:
    import numpy as np

    return fmean(
        float(np.isin(found, list(counted)).mean())
        for key, found in letters.items()
        if key.model == model and horizon in (None, key.horizon)
    )


def limit_of(letters: Letters, frame: Frame, counted: str) -> str:
    """Where every model compared is at a floor or a ceiling; empty where no cell is."""
    shares = {
        horizon: [_mean_share(letters, model, counted, horizon) for model in frame.models] for horizon in frame.horizons
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
    dataset = item.result.evaluation.dataset
    return dataset.offset, dataset.offset + dataset.n


def count(number: int, noun: str) -> str:
    """A number with its noun: "no image", "1 image", "2 images"."""
    return f"{number or 'no'} {noun}{'s' * (number > 1)}"
