"""How long an attack and the checks after it may take, told before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from odebench.attack.definition import Stage

FORWARD_SHARE = 1 / 3
"""What a query costs in gradients."""
USUAL_SHARE, STAGED_SHARE = 0.6, 0.5
"""What an attack takes of the longest that it may, as images fall on its way; and one of several stages."""
CHECK_IMAGES, CHECK_GRADIENTS, OTHER_CHECK_GRADIENTS = 32, 160, 5
"""What the checks after an attack cost, in gradients of an image: most of them of at most 32 images, and so many each;
the others of the whole first chunk. Measured before gradients were replayed: 43 to 60 gradients of a chunk of
100, 83 of one of 50, 78 of one of 20; with the replay 57 of one of 100.
"""
CHECK_IMAGES_ALONE = 12
"""The same of a model that is asked image by image."""

LONG = 60.0
"""Seconds from which on an attack is said to be shortened by fewer images."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that an attack takes as a rule, and at most, on free cores; and those of the checks after it."""

    usual: float
    most: float
    checks: float

    def __str__(self) -> str:
        attack = f"about {_duration(self.usual)}, at most {_duration(self.most)} on free cores"
        shorter = ", less for a smaller -n" if self.usual > LONG else ""
        checks = f"; then checks of the model, about {_duration(self.checks)} for any -n" if self.checks else ""
        return f"{attack}{shorter}{checks}"


def estimate(
    stages: Sequence[Stage], *, chunk: int, chunks: int, epsilons: int, gradient: float, checks: bool, alone: bool
) -> Estimate:
    """The time of some stages on whole chunks, and of the `checks` after them where they are made, from the seconds
    that a `gradient` of one chunk takes, image by image if `alone`."""
    most = gradient * sum(_gradients(stage, chunk) for stage in stages) * epsilons * chunks
    images = min(CHECK_IMAGES_ALONE if alone else CHECK_IMAGES, chunk)
    after = gradient * (CHECK_GRADIENTS * images / chunk + OTHER_CHECK_GRADIENTS)
    usual = most * (USUAL_SHARE if len(stages) == 1 else STAGED_SHARE)
    return Estimate(usual, most, after if checks else 0.0)


def _gradients(stage: Stage, chunk: int) -> float:
    """What a stage costs at most on a chunk, in gradients of the whole chunk."""
    share = 1.0 if stage.most_images is None else min(1.0, stage.most_images / chunk)
    definition = stage.definition
    cost = 1.0 if definition.uses_gradients else FORWARD_SHARE
    if definition.pass_gradients is not None:
        cost = definition.pass_gradients(stage.parameters)
    return stage.passes * share * cost


def _duration(seconds: float) -> str:
    """A time in seconds or minutes."""
    if seconds < 1:
        return "1 s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
