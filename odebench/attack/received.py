"""A sample of the gradients that an attack received from a model, to be looked at once it has ended."""

from __future__ import annotations

import random

from torch import Tensor

from odebench.model.process_classifier import DrawnGradient
from odebench.numerics.shapes import Images, Logits

MOST, MOST_ALONE = 100, 40
"""How many gradients are kept; the second of a model that is asked image by image."""
LEAST_COTANGENT = 1e-20
"""Where no entry of the gradient in the logits is larger, that in the pixels is rounded to nothing in fp32."""


class Received:
    """Of all gradients that are offered, each is kept with the same probability (Vitter 1985, algorithm R).

    The sample is drawn by random numbers of its own, so that equal attacks keep equal gradients and draw as they would
    otherwise. Once it is closed nothing is added.
    """

    def __init__(self) -> None:
        self.offered, self.closed = 0, False
        self.kept: list[DrawnGradient] = []
        self._chance = random.Random(0)

    def close(self) -> None:
        """From now on nothing is added."""
        self.closed = True

    def sample(self, *, alone: bool) -> list[DrawnGradient]:
        """What was kept; fewer of a model that is asked image by image."""
        if not alone or len(self.kept) <= MOST_ALONE:
            return list(self.kept)
        return random.Random(0).sample(self.kept, MOST_ALONE)

    def offer(self, images: Images, cotangent: Logits, gradient: Images) -> None:
        """Takes note of a gradient in the `images`, of which `cotangent` is the one in their logits. Rows of the batch
        whose cotangent is zero or not finite are no gradients of anything."""
        if self.closed:
            return
        size = cotangent.abs().amax(1)
        places: dict[int, int] = {}
        for row in ((size > LEAST_COTANGENT) & size.isfinite()).nonzero().flatten().tolist():
            self.offered += 1
            place = self.offered - 1 if self.offered <= MOST else self._chance.randrange(self.offered)
            if place < MOST:
                places[place] = row
        if not places:
            return
        rows = list(places.values())
        parts: list[Tensor] = [one.detach()[rows].clone() for one in (images, cotangent, gradient)]
        for place, *one in zip(places, *parts, strict=True):
            self.kept[place : place + 1] = [DrawnGradient(*one)]
