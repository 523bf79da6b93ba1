"""Whether outcomes found now agree with committed ones: image by image where possible, else by accuracies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from odebench.numerics.statistics import difference_interval
from odebench.result.outcome import ROBUST
from odebench.result.schema import letter_figures

TOLERATED = 0.01
"""The share of a result's outcomes that may differ on other hardware."""
ONE_SIDED_FROM = 6
"""The number of differing outcomes from which it is noted that all make the committed results look better."""


@dataclass(frozen=True)
class Shares:
    """Clean and robust accuracy at one epsilon: found now on the images asked, and committed on `n` images."""

    epsilon: float
    clean_found: float
    robust_found: float
    clean_committed: float
    robust_committed: float
    n: int


@dataclass(frozen=True)
class ComparedChunk:
    """One chunk of images of a committed result, attacked again.

    `images` is the number of images compared. Where the result holds these images and the model draws no random
    numbers, `letters` outcomes were compared, of which `differ` differ and `flatter` are robust in the committed result
    alone; otherwise `letters` is 0 and only the accuracies in `shares` are compared.
    """

    dataset: str
    train_horizon: float | None
    horizon: float | None
    train_seed: int
    attack: str
    effort: str | None
    norm: str
    result: str
    chunk: int
    images: int
    letters: int
    differ: int
    flatter: int
    shares: tuple[Shares, ...]


def differing(found: Sequence[str], committed: Sequence[str]) -> int:
    """The number of outcomes that differ, over all epsilons; each text holds those of one epsilon."""
    return sum(now != before for now, before in _pairs(found, committed))


def one_sided(found: Sequence[str], committed: Sequence[str]) -> int:
    """The number of outcomes that are robust in the committed texts alone, over all epsilons."""
    return sum(before == ROBUST != now for now, before in _pairs(found, committed))


def _pairs(found: Sequence[str], committed: Sequence[str]) -> Iterator[tuple[str, str]]:
    for now, before in zip(found, committed, strict=True):
        yield from zip(now, before, strict=True)


def shares_of(epsilon: float, found: str, committed: str) -> Shares:
    """The accuracies of two texts of outcomes, found now and committed."""
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
    """A sentence if two shares differ by more than the sizes of their samples explain, that is, if Newcombe's interval
    of the difference excludes 0; None otherwise."""
    low, high = difference_interval(found * n_found, n_found, said * n_said, n_said, confidence=confidence)
    if low <= 0 <= high:
        return None
    return (
        f"{name} is {found:.1%} of the {n_found} images looked at, and said to be {said:.1%} of {n_said}: the "
        f"difference is {100 * low:+.1f} to {100 * high:+.1f} points"
    )
