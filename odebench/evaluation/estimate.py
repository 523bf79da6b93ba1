"""How long an attack may take, told before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from odebench.attack.definition import Stage

FORWARD_SHARE = 1 / 3
"""What a query costs in gradients."""
USUAL_SHARE = 0.55
"""What an attack takes of the longest that it may, as images fall on its way."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that an attack takes as a rule, and at most, on free cores."""

    usual: float
    most: float

    def __str__(self) -> str:
        return f"about {_duration(self.usual)}, at most {_duration(self.most)} on free cores"


def estimate(stages: Sequence[Stage], *, chunk: int, chunks: int, epsilons: int, gradient: float) -> Estimate:
    """The time of some stages on whole chunks, from the seconds that a `gradient` of one chunk takes."""
    most = gradient * sum(_gradients(stage, chunk) for stage in stages) * epsilons * chunks
    return Estimate(USUAL_SHARE * most, most)


def _gradients(stage: Stage, chunk: int) -> float:
    """What a stage costs at most on a chunk, in gradients of the whole chunk."""
    share = 1.0 if stage.most_images is None else min(1.0, stage.most_images / chunk)
    return stage.passes * share * (1.0 if stage.definition.uses_gradients else FORWARD_SHARE)


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "1 s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
