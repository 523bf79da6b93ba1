"""The union of results: what all attacks on one model found together, image by image (docs/protocol.md).

A set of images is an integer whose bit i stands for image i of the data set's fixed order. Merging is
therefore a bitwise "or", and the order in which results are read cannot matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from pathlib import Path

from odebench.errors import ResultError
from odebench.result.schema import OUTCOMES, Result

DISAGREEMENT_PERCENT = 1
_BITS = {letter: str.maketrans({other: "1" if other == letter else "0" for other in OUTCOMES}) for letter in OUTCOMES}


@dataclass(frozen=True)
class StoredResult:
    """A result and the file that it was read from."""

    path: Path
    result: Result


@dataclass(frozen=True)
class OutcomeSets:
    """All that is known of one model's images: as sets of images, on the clean image and by epsilon.

    `judged[epsilon]` holds the images that some result evaluated at epsilon. Where several results spoke of
    one image the sets may overlap; `at` decides.
    """

    images: int
    wrong: int
    unsolved: int
    judged: Mapping[float, int]
    fooled: Mapping[float, int]
    failed: Mapping[float, int]

    def at(self, epsilon: float) -> dict[str, int]:
        """The images under each outcome at `epsilon`, in disjoint sets: m > u > f > x > r.

        A fall at a smaller epsilon carries to this one. An image is robust only where `epsilon` itself was
        evaluated on it: standing at a larger radius proves nothing about this attack at a smaller one.
        """
        claims = {
            "m": self.wrong,
            "u": self.unsolved,
            "f": _up_to(self.fooled, epsilon),
            "x": _up_to(self.failed, epsilon),
            "r": self.judged.get(epsilon, 0),
        }
        taken = 0
        for letter, images in claims.items():
            claims[letter] = images & ~taken
            taken |= images
        return claims

    def shares(self, epsilon: float, images: int) -> tuple[float, float]:
        """Clean and robust accuracy at `epsilon` over `images`, which must all have been judged there."""
        assert images
        assert images & ~self.judged.get(epsilon, 0) == 0
        letters = self.at(epsilon)
        n = images.bit_count()
        wrong = ((letters["m"] | letters["u"]) & images).bit_count()
        return (n - wrong) / n, (letters["r"] & images).bit_count() / n


def letters_of(result: Result) -> OutcomeSets:
    """The letters of one result, its images at their places in the data set's order."""
    offset = result.evaluation.dataset.offset
    sets = {
        item.epsilon: {letter: _image_set(item.outcomes, letter) << offset for letter in OUTCOMES}
        for item in result.epsilons
    }
    images = image_set(result)
    return OutcomeSets(
        images=images,
        wrong=reduce(int.__or__, (item["m"] for item in sets.values())),
        unsolved=reduce(int.__or__, (item["u"] for item in sets.values())),
        judged=dict.fromkeys(sets, images),
        fooled={epsilon: item["f"] for epsilon, item in sets.items()},
        failed={epsilon: item["x"] for epsilon, item in sets.items()},
    )


def image_set(result: Result) -> int:
    """The images that a result judged: `offset` to `offset + n`."""
    dataset = result.evaluation.dataset
    return ((1 << dataset.n) - 1) << dataset.offset


def merge(first: OutcomeSets, second: OutcomeSets) -> OutcomeSets:
    """What two sets of letters of one model say together."""
    return OutcomeSets(
        images=first.images | second.images,
        wrong=first.wrong | second.wrong,
        unsolved=first.unsolved | second.unsolved,
        judged=_merge_sets(first.judged, second.judged),
        fooled=_merge_sets(first.fooled, second.fooled),
        failed=_merge_sets(first.failed, second.failed),
    )


def union(stored: Sequence[StoredResult]) -> OutcomeSets:
    """The union of results of one model, data set and norm; at least one.

    Raises ResultError, naming both files, where two results judge more than 1% of the clean images that they
    share differently: hardware explains less than that.
    """
    letters = [letters_of(item.result) for item in stored]
    for (one, first), (other, second) in combinations(zip(stored, letters, strict=True), 2):
        shared = first.images & second.images
        differing = ((first.wrong ^ second.wrong) | (first.unsolved ^ second.unsolved)) & shared
        if 100 * differing.bit_count() > DISAGREEMENT_PERCENT * shared.bit_count():
            raise ResultError(
                f"{one.path} and {other.path} contradict each other: they judge {differing.bit_count()} of "
                f"{shared.bit_count()} clean images differently (m or u), more than "
                f"{DISAGREEMENT_PERCENT}%; run both evaluations again with --force, or delete the wrong file"
            )
    return reduce(merge, letters)


def _image_set(outcomes: str, letter: str) -> int:
    return int(outcomes[::-1].translate(_BITS[letter]), 2)


def _up_to(sets: Mapping[float, int], epsilon: float) -> int:
    return reduce(int.__or__, (images for at, images in sets.items() if at <= epsilon), 0)


def _merge_sets(first: Mapping[float, int], second: Mapping[float, int]) -> dict[float, int]:
    return {epsilon: first.get(epsilon, 0) | second.get(epsilon, 0) for epsilon in {**first, **second}}
