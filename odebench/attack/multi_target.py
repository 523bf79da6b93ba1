"""Targeted attacks on several classes in one pass: copies of the images that stand, one a target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odebench.attack.early_stopping import Fallen
from odebench.attack.wrapped_model import WrappedModel

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]

PASS_IMAGES = 100
"""Up to so many copies of images, one a target, are attacked in one pass."""


def ranked_others(model: WrappedModel, images: Images, labels: Labels) -> Int[Tensor, "batch others"]:
    """The classes other than the label, the likeliest first; also where the label itself is not the likeliest."""
    with torch.no_grad():
        ranked = model(images).argsort(dim=1, descending=True)
    others: Tensor = ranked[ranked != labels[:, None]].view(len(images), -1)
    return others


def together(
    standing: Bool[Tensor, " batch"], others: Int[Tensor, "batch targets"]
) -> Iterator[tuple[Int[Tensor, " alive"], Int[Tensor, " rows"]]]:
    """The images that stand, and for as many targets as fit into one pass those of all of them, target by target.

    A pass has a fixed cost, so an image is dear in a small one. What falls on the way is left out of the next.
    """
    done = 0
    while done < others.shape[1] and standing.any():
        alive = standing.nonzero().flatten()
        count = max(1, PASS_IMAGES // len(alive))
        aims = others[alive, done : done + count].T.flatten()
        yield alive, aims
        done += count


class OncePerImage:
    """`fallen` for copies of images: a copy whose image has fallen, by itself or by another copy, is not judged.

    `down` says which of the images have fallen, `proof` holds what felled them.
    """

    def __init__(self, fallen: Fallen, rows: Int[Tensor, " rows"], images: Images) -> None:
        self.fallen, self.rows, self.proof = fallen, rows, images.clone()
        self.down = torch.zeros(len(images), dtype=torch.bool, device=rows.device)

    def __call__(self, copies: Tensor, candidates: Tensor) -> Tensor:
        """Which of these copies are of fallen images, now that these candidates are judged."""
        images, waiting = self.rows[copies], torch.ones_like(copies, dtype=torch.bool)
        while (waiting := waiting & ~self.down[images]).any():
            first = _first_copies(images, waiting)
            fell = self.fallen(images[first], candidates[first])
            self.down[images[first]] = fell
            self.proof[images[first[fell]]] = candidates[first[fell]]
            waiting[first] = False
        return self.down[images]


def _first_copies(images: Int[Tensor, " copies"], waiting: Bool[Tensor, " copies"]) -> Int[Tensor, " some"]:
    """The positions of the first waiting copy of each image."""
    positions = waiting.nonzero().flatten()
    _, which = np.unique(images[positions].cpu().numpy(), return_index=True)
    return positions[torch.from_numpy(which).to(positions.device)]


def any_copy(rows: Int[Tensor, " rows"], fooled: Bool[Tensor, " rows"], n: int) -> Bool[Tensor, " batch"]:
    """For each of n images whether one of its copies fools."""
    found = torch.zeros(n, dtype=torch.bool, device=rows.device)
    found[rows[fooled]] = True
    return found


def propose(found: Images, alive: Int[Tensor, " alive"], candidates: Images, fooled: Bool[Tensor, " rows"]) -> None:
    """Enters candidates of the images that stand, copy by copy: the last one, or the last that fools."""
    parts = list(zip(torch.split(candidates, len(alive)), torch.split(fooled, len(alive)), strict=True))
    for part, _ in parts:
        found[alive] = part
    for part, good in parts:
        found[alive[good]] = part[good]
