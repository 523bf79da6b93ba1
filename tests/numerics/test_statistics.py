"""Intervals against published numbers, scipy and their own definitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from odebench.numerics.statistics import (
    holm,
    paired_interval,
    share_interval,
    student,
    wilson,
    wilson_lower,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_within_0_and_1(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1
    mirrored = wilson(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson_lower(0, 0) == 0.0


def test_wilson_lower_has_the_thresholds_of_the_checks() -> None:
    # docs/protocol.md 4: above 1% from 5 of 200 and 9 of 500
    assert wilson_lower(4, 200) < 0.01 < wilson_lower(5, 200)
    assert wilson_lower(8, 500) < 0.01 < wilson_lower(9, 500)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_student_equals_scipy(values: list[float]) -> None:
    low, high = student(values)
    deviation = math.sqrt(sum((v - sum(values) / len(values)) ** 2 for v in values) / (len(values) - 1))
    half = stats.t.ppf(0.975, len(values) - 1) * deviation / math.sqrt(len(values))
    mean = sum(values) / len(values)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=1e-9)


def test_student_needs_two_values() -> None:
    with pytest.raises(ValueError, match="needs at least two"):
        student([0.5])


def test_share_interval_is_wilson_where_seeds_agree() -> None:
    assert share_interval([0.9, 0.9, 0.9], 500) == pytest.approx((0.9, *wilson(450, 500)))
    assert share_interval([0.9], 500) == (0.9, *wilson(450, 500))


def test_share_interval_is_student_where_seeds_scatter() -> None:
    shares = [0.5, 0.6, 0.7]
    mean, low, high = share_interval(shares, 500)
    assert mean == pytest.approx(0.6)
    assert (low, high) == pytest.approx(student(shares))
    assert share_interval([0.0, 1.0], 500)[1:] == (0.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 1000))
def test_share_interval_is_never_narrower_than_wilson(shares: list[float], n: int) -> None:
    mean, low, high = share_interval(shares, n)
    wilson_low, wilson_high = wilson(mean * n, n)
    assert 0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1
    assert high - low >= wilson_high - wilson_low - 1e-9 or low == 0.0 or high == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_lies_between_p_and_bonferroni_whatever_the_order(ps: list[float], random: Any) -> None:
    adjusted = holm(ps)
    for p, found in zip(ps, adjusted, strict=True):
        assert p <= found <= min(1.0, len(ps) * p) + 1e-12
    pairs = list(zip(ps, adjusted, strict=True))
    random.shuffle(pairs)
    assert holm([p for p, _ in pairs]) == pytest.approx([found for _, found in pairs])


def test_a_paired_interval_by_hand() -> None:
    # Bonett and Price: p12 = 11/102, p21 = 5/102.
    up, down = 11 / 102, 5 / 102
    half = 1.959964 * math.sqrt((up + down - (up - down) ** 2) / 102)
    assert paired_interval(10, 4, 100) == pytest.approx((up - down - half, up - down + half), abs=1e-6)
    assert paired_interval(0, 0, 0) == (-1.0, 1.0)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100))
def test_a_paired_interval_is_the_other_way_round_when_the_sides_are(gained: int, lost: int, same: int) -> None:
    low, high = paired_interval(gained, lost, gained + lost + same)
    back = paired_interval(lost, gained, gained + lost + same)
    assert (low, high) == pytest.approx((-back[1], -back[0]))
    assert -1 <= low < high <= 1
