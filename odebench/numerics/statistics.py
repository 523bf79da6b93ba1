"""Intervals: Wilson's for a share, Student's over train seeds, paired ones; the sign test; Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev


def wilson(successes: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided score interval of a proportion (Wilson 1927, JASA 22, p. 209), in [0, 1].

    `successes` may be a mean over seeds, hence a fraction. With n = 0 the interval is (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def wilson_lower(successes: int, n: int, *, confidence: float = 0.95) -> float:
    """The one-sided lower bound of a proportion by Wilson's interval; 0 where n is 0."""
    return wilson(successes, n, confidence=2 * confidence - 1)[0] if n else 0.0


def student(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean. Raises ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError("an interval over seeds needs at least two of them")
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def share_interval(shares: Sequence[float], n: int) -> tuple[float, float, float]:
    """Mean, low and high end of a share over train seeds judged on the same `n` images.

    The interval is the wider of Wilson's at n images (not n x seeds: the images are the same) and Student's over the
    seeds, within [0, 1].
    """
    mean = fmean(shares)
    low, high = wilson(mean * n, n)
    if len(shares) > 1:
        seeds_low, seeds_high = student(shares)
        if seeds_high - seeds_low > high - low:
            low, high = max(0.0, seeds_low), min(1.0, seeds_high)
    return mean, low, high


def holm(ps: Sequence[float]) -> list[float]:
    """The p of each member of a family, adjusted for their number (Holm 1979), in the order given."""
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def sign_test(gained: int, lost: int) -> float:
    """The exact two-sided p of equal shares of the same images, of which `gained` changed one way and `lost` the other
    (McNemar's test, exact)."""
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << n))


def paired_interval(gained: int, lost: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of (gained - lost) / n, the difference of two shares of the same n images, of which `gained` changed
    one way and `lost` the other (Bonett and Price 2012, J. Educ. Behav. Stat. 37, p. 479: Wald's with one image more of
    each kind)."""
    if n == 0:
        return -1.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def difference_interval(
    first: float, n_first: int, second: float, n_second: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of first / n_first - second / n_second, the difference of the shares of two samples of images
    (Newcombe 1998, Statist. Med. 17, p. 876, method 10: from Wilson's interval of each)."""
    if n_first == 0 or n_second == 0:
        return -1.0, 1.0
    one, other = first / n_first, second / n_second
    low_one, high_one = wilson(first, n_first, confidence=confidence)
    low_other, high_other = wilson(second, n_second, confidence=confidence)
    down = math.hypot(one - low_one, high_other - other)
    up = math.hypot(high_one - one, other - low_other)
    return max(-1.0, one - other - down), min(1.0, one - other + up)
