"""Whether letters found now agree with committed ones: letter by letter on the same images, else by their shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from odebench.numerics.statistics import difference_interval
from odebench.result.schema import letter_figures

TOLERATED = 0.01
"""The share of the letters of a result that other hardware may move."""
ONE_WAY = 6
"""From so many differing letters on it is noted where all make the committed results look better."""


@dataclass(frozen=True)
class Shares:
    """Clean and robust accuracy at one epsilon: found now on the images looked at, and committed on `n` images."""

    epsilon: float
    clean_found: float
    robust_found: float
    clean_committed: float
    robust_committed: float
    n: int


@dataclass(frozen=True)
class ComparedChunk:
    """One committed result and one chunk of its images, asked again.

    `images` are how many of the chunk were compared: by `letters` where the result holds them and the model draws no
    random numbers, so many of which `differ`, and `flatter` where the committed one alone says robust; else (`letters`
    is 0) by their shares.
    """

    dataset: str
    train_horizon: float | None
    horizon: float | None
    train_seed: int
    attack: str
    norm: str
    result: str
    chunk: int
    images: int
    letters: int
    differ: int
    flatter: int
    shares: tuple[Shares, ...]

    def json(self) -> dict[str, JsonValue]:
        """The cell as plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "shares"}
        return {**plain, "shares": [{**each.__dict__} for each in self.shares]}


def differing(found: Sequence[str], committed: Sequence[str]) -> int:
    """How many letters differ, over all epsilons."""
    return sum(
        one != other
        for mine, theirs in zip(found, committed, strict=True)
        for one, other in zip(mine, theirs, strict=True)
    )


def one_sided(found: Sequence[str], committed: Sequence[str]) -> int:
    """How many letters say robust in the committed texts alone, over all epsilons."""
    return sum(
        theirs == "r" != mine
        for one, other in zip(found, committed, strict=True)
        for mine, theirs in zip(one, other, strict=True)
    )


def shares_of(epsilon: float, found: str, committed: str) -> Shares:
    """The accuracies that two texts of letters say."""
    now, before = letter_figures(found), letter_figures(committed)
    return Shares(
        epsilon=epsilon,
        clean_found=now["clean_accuracy"].value,
        robust_found=now["robust_accuracy"].value,
        clean_committed=before["clean_accuracy"].value,
        robust_committed=before["robust_accuracy"].value,
        n=len(committed),
    )


def disagreement(name: str, found: float, n_found: int, said: float, n_said: int, *, confidence: float) -> str | None:
    """A sentence where two shares of two samples lie further apart than their sizes explain, by Newcombe's interval of
    a difference; None where they do not."""
    low, high = difference_interval(found * n_found, n_found, said * n_said, n_said, confidence=confidence)
    if low <= 0 <= high:
        return None
    return (
        f"{name} is {found:.1%} of the {n_found} images looked at, and said to be {said:.1%} of {n_said}: the "
        f"difference is {100 * low:+.1f} to {100 * high:+.1f} points"
    )
