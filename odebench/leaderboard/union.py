"""The union of results: what all attacks on one model found together, image by image (docs/protocol.md).

A set of images is an integer whose bit i stands for image i of the data set's fixed order. Merging is therefore a
bitwise "or", and the order in which results are read cannot matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from pathlib import Path

from odebench.errors import ResultError
from odebench.protocol.spec import Evaluation
from odebench.result.outcome import FAILED, FOOLED, OUTCOMES, ROBUST, UNSOLVED, WRONG
from odebench.result.schema import Result

DISAGREEMENT_PERCENT = 1
_BITS = {one: str.maketrans({other: "1" if other == one else "0" for other in OUTCOMES}) for one in OUTCOMES}


@dataclass(frozen=True)
class StoredResult:
    """A result and the file that it was read from."""

    path: Path
    result: Result

    @property
    def evaluation(self) -> Evaluation:
        return self.result.evaluation


@dataclass(frozen=True)
class OutcomeSets:
    """What is known of one model's images, as sets: of the clean ones, and by epsilon. `judged[epsilon]` holds those
    that some result evaluated there. Of an image that several results judged the sets may overlap; `at` decides."""

    images: int
    wrong: int
    unsolved: int
    judged: Mapping[float, int]
    fooled: Mapping[float, int]
    failed: Mapping[float, int]

    def at(self, epsilon: float) -> dict[str, int]:
        """The images of each outcome at `epsilon`, in disjoint sets: m > u > f > x > r.

        An adversarial image at a smaller epsilon counts at this one. An image is robust only where `epsilon` itself
        was evaluated on it: an attack that fails at a larger radius proves nothing about a smaller one.
        """
        claims = {
            WRONG: self.wrong,
            UNSOLVED: self.unsolved,
            FOOLED: _up_to(self.fooled, epsilon),
            FAILED: _up_to(self.failed, epsilon),
            ROBUST: self.judged.get(epsilon, 0),
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
        found = self.at(epsilon)
        n = images.bit_count()
        wrong = ((found[WRONG] | found[UNSOLVED]) & images).bit_count()
        return (n - wrong) / n, (found[ROBUST] & images).bit_count() / n


def outcome_sets(result: Result) -> OutcomeSets:
    """The outcomes of one result as sets of images, these at their places in the data set's order."""
    offset = result.evaluation.dataset.offset
    sets = {
        item.epsilon: {outcome: _image_set(item.outcomes, outcome) << offset for outcome in OUTCOMES}
        for item in result.epsilons
    }
    images = image_set(result)
    return OutcomeSets(
        images=images,
        wrong=reduce(int.__or__, (item[WRONG] for item in sets.values())),
        unsolved=reduce(int.__or__, (item[UNSOLVED] for item in sets.values())),
        judged=dict.fromkeys(sets, images),
        fooled={epsilon: item[FOOLED] for epsilon, item in sets.items()},
        failed={epsilon: item[FAILED] for epsilon, item in sets.items()},
    )


def image_set(result: Result) -> int:
    """The images that a result judged: `offset` to `offset + n`."""
    dataset = result.evaluation.dataset
    return ((1 << dataset.n) - 1) << dataset.offset


def could_lower(item: StoredResult, epsilon: float, images: int) -> bool:
    """Whether a result judged some of these images at `epsilon` or a smaller one, so that it could lower a figure."""
    return item.evaluation.threat_model.epsilons[0] <= epsilon and bool(image_set(item.result) & images)


def merge(first: OutcomeSets, second: OutcomeSets) -> OutcomeSets:
    """What the outcomes of two results of one model say together."""
    return OutcomeSets(
        images=first.images | second.images,
        wrong=first.wrong | second.wrong,
        unsolved=first.unsolved | second.unsolved,
        judged=_merge_sets(first.judged, second.judged),
        fooled=_merge_sets(first.fooled, second.fooled),
        failed=_merge_sets(first.failed, second.failed),
    )


def union(stored: Sequence[StoredResult]) -> OutcomeSets:
    """The union of at least one result of one model, data set and norm. Raises ResultError, naming both files, where
    two judge more than 1% of their common clean images differently: hardware explains less."""
    found = [outcome_sets(item.result) for item in stored]
    for (one, first), (other, second) in combinations(zip(stored, found, strict=True), 2):
        shared = first.images & second.images
        differing = ((first.wrong ^ second.wrong) | (first.unsolved ^ second.unsolved)) & shared
        if 100 * differing.bit_count() > DISAGREEMENT_PERCENT * shared.bit_count():
            raise ResultError(
                f"{one.path} and {other.path} contradict each other: they judge {differing.bit_count()} of "
                f"{shared.bit_count()} clean images differently (m or u), more than "
                f"{DISAGREEMENT_PERCENT}%; run both evaluations again with --force, or delete the wrong file"
            )
    return reduce(merge, found)


def _image_set(outcomes: str, outcome: str) -> int:
    return int(outcomes[::-1].translate(_BITS[outcome]), 2)


def _up_to(sets: Mapping[float, int], epsilon: float) -> int:
    return reduce(int.__or__, (images for at, images in sets.items() if at <= epsilon), 0)


def _merge_sets(first: Mapping[float, int], second: Mapping[float, int]) -> dict[float, int]:
    return {epsilon: first.get(epsilon, 0) | second.get(epsilon, 0) for epsilon in {**first, **second}}
