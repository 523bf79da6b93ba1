"""The figures of one result as the leaderboard shows them: an image that falls at one epsilon falls at larger ones."""

from __future__ import annotations

from dataclasses import dataclass

from odebench.leaderboard.union import outcome_sets
from odebench.result.outcome import FAILED, FOOLED, ROBUST, UNSOLVED
from odebench.result.schema import Figure, Result, figure

CARRY_OVER = "Carry-over: an image that falls at one epsilon counts as fallen at every larger one."


@dataclass(frozen=True)
class CarriedFigures:
    """What a result says at `epsilon` after carry-over: shares of its images with 95% intervals, and how many images
    were fooled, and failed (u or x). `carried` images fell at a smaller epsilon, and at this one did not."""

    epsilon: float
    clean: Figure
    robust: Figure
    fooled: int
    failed: int
    carried: int


def carried_figures(result: Result) -> list[CarriedFigures]:
    """The figures of a result at each of its epsilons, rising."""
    outcomes, n = outcome_sets(result), result.evaluation.dataset.n
    found = []
    for item in result.epsilons:
        images = {letter: rows.bit_count() for letter, rows in outcomes.at(item.epsilon).items()}
        adversarial = images[FOOLED] + images[FAILED]
        robust = images[ROBUST]
        found.append(
            CarriedFigures(
                item.epsilon,
                clean=figure(robust + adversarial, n),
                robust=figure(robust, n),
                fooled=images[FOOLED],
                failed=images[FAILED] + images[UNSOLVED],
                carried=item.outcomes.count(ROBUST) - robust,
            )
        )
    return found
