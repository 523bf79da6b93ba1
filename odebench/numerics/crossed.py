"""A mean over train seeds and images, both samples: two-way crossed random effects with one value in a cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Table: TypeAlias = "np.ndarray[Any, Any]"
"""A row a train seed, a column an image."""

_ZERO = 1e-12
"""Rounding errors of sums stay below this."""


@dataclass(frozen=True)
class CrossedMean:
    """The mean of a table with its standard error, from the mean squares of its rows, columns and residuals.

    SE^2 = (MS_seed + MS_image - MS_residual) / (S n), with Satterthwaite's degrees of freedom (Satterthwaite 1946); at
    least MS_residual / (S n), there with (S - 1)(n - 1). All in the unit of the table, mean squares in its square.
    """

    mean: float
    seeds: int
    images: int
    ms_seed: float
    ms_image: float
    ms_residual: float

    @property
    def components(self) -> tuple[float, float, float]:
        """The variance components of seeds, images and residuals (Henderson's; below zero: zero)."""
        seed = (self.ms_seed - self.ms_residual) / self.images
        image = (self.ms_image - self.ms_residual) / self.seeds
        return max(0.0, seed), max(0.0, image), self.ms_residual

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(max(self._sum, self.ms_residual) / (self.seeds * self.images))

    @property
    def degrees_of_freedom(self) -> float:
        """Those of the standard error, for Student's t."""
        residual = (self.seeds - 1) * (self.images - 1)
        if self._sum <= self.ms_residual:
            return float(residual)
        parts = ((self.ms_seed, self.seeds - 1), (self.ms_image, self.images - 1), (self.ms_residual, residual))
        return self._sum**2 / sum(square**2 / freedom for square, freedom in parts)

    @property
    def p(self) -> float:
        """The two-sided p of a mean other than zero; 0 or 1 where all values are equal."""
        if self.standard_error <= _ZERO:
            return 0.0 if abs(self.mean) > _ZERO else 1.0
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees_of_freedom, -abs(self.mean) / self.standard_error))

    def half_width(self, confidence: float = 0.95) -> float:
        """Half the width of the two-sided interval of the mean."""
        return _quantile(self.degrees_of_freedom, confidence) * self.standard_error

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two-sided interval of the mean."""
        half = self.half_width(confidence)
        return self.mean - half, self.mean + half

    def half_width_with(self, *, seeds: int, images: int, confidence: float = 0.95) -> float:
        """The half-width to expect of so many train seeds and images, if the variance components are as found here."""
        of_seed, of_image, rest = self.components
        other = CrossedMean(
            self.mean, seeds, images, images * of_seed + rest, seeds * of_image + rest, ms_residual=rest
        )
        return other.half_width(confidence)

    @property
    def _sum(self) -> float:
        return self.ms_seed + self.ms_image - self.ms_residual


def crossed_mean(table: Table | Sequence[Sequence[float]]) -> CrossedMean:
    """The mean of a table of at least two rows (train seeds) and two columns (images). Raises ValueError for less."""
    import numpy as np

    values = np.asarray(table, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError("a crossed mean needs two train seeds and two images at least")
    seeds, images = values.shape
    mean = values.mean()
    by_seed, by_image = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    rest = values - mean - by_seed[:, None] - by_image[None, :]
    return CrossedMean(
        mean=float(mean),
        seeds=seeds,
        images=images,
        ms_seed=float(images * (by_seed**2).sum() / (seeds - 1)),
        ms_image=float(seeds * (by_image**2).sum() / (images - 1)),
        ms_residual=float((rest**2).sum() / ((seeds - 1) * (images - 1))),
    )


def _quantile(freedom: float, confidence: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + confidence / 2))
