"""Intervals: Wilson's for a proportion, Student's over train seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev


def wilson(successes: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided score interval of a proportion (Wilson 1927, JASA 22, p. 209), in [0, 1].

    `successes` may be a mean over seeds, hence a fraction. With n = 0 nothing is known: (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def wilson_lower(successes: int, n: int, *, confidence: float = 0.95) -> float:
    """The one-sided lower bound of a proportion: 0 where n is 0."""
    return wilson(successes, n, confidence=2 * confidence - 1)[0] if n else 0.0


def student(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean. Raises ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError("an interval over seeds needs at least two of them")
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def share_interval(shares: Sequence[float], n: int) -> tuple[float, float, float]:
    """Mean, low and high of a share over train seeds that saw the same `n` images.

    The wider of Wilson's interval at n images (the images are shared, so never n x seeds) and Student's over
    the seeds, kept within [0, 1].
    """
    mean = fmean(shares)
    low, high = wilson(mean * n, n)
    if len(shares) > 1:
        seeds_low, seeds_high = student(shares)
        if seeds_high - seeds_low > high - low:
            low, high = max(0.0, seeds_low), min(1.0, seeds_high)
    return mean, low, high
