"""Targeted attacks on several classes in one pass: each remaining image is copied once per target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from odebench.attack.early_stopping import IsAdversarial, strictly_correct, with_early_stopping
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.shapes import Images, Labels

PASS_IMAGES = 100
"""The largest number of copies that are attacked in one pass."""


def ranked_others(model: WrappedModel, images: Images, labels: Labels) -> Int[Tensor, "batch others"]:
    """The classes other than the label, the likeliest first; also where the label itself is not the likeliest."""
    with torch.no_grad():
        ranked = model(images).argsort(dim=1, descending=True)
    others: Tensor = ranked[ranked != labels[:, None]].view(len(images), -1)
    return others


def together(
    remaining: Bool[Tensor, " batch"], others: Int[Tensor, "batch targets"]
) -> Iterator[tuple[Int[Tensor, " images"], Int[Tensor, " copies"]]]:
    """Pass by pass, the rows of the remaining images, and the targets of their copies: all images for the first target,
    then all for the next.

    A pass has a fixed cost, so that with few images several targets share one. `remaining` is read anew for each pass:
    an image that the caller takes out is left out of the next.
    """
    done = 0
    while done < others.shape[1] and remaining.any():
        rows = remaining.nonzero().flatten()
        count = max(1, PASS_IMAGES // len(rows))
        targets = others[rows, done : done + count].T.flatten()
        yield rows, targets
        done += count


Aimed = Callable[[nn.Module, Images, Labels, Labels, int], Images]
"""attack(model, points, labels, targets, turn) -> candidates"""


def attack_targets(
    attack: Aimed,
    model: WrappedModel,
    images: Images,
    labels: Labels,
    others: Int[Tensor, "batch targets"],
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None,
    turns: int = 1,
) -> Images:
    """The candidates of `attack` towards each of the classes `others` of an image, `turns` times over: the last that
    fools the model, else the last. An image is left alone once one of its copies succeeds."""
    found, remaining, number = images.clone(), torch.ones_like(labels, dtype=torch.bool), 0
    for turn in range(turns):
        for attacked, aims in together(remaining, others):
            rows = attacked.repeat(len(aims) // len(attacked))
            points, own = images[rows], labels[rows]
            run = partial(_run, attack, points=points, own=own, aims=aims, turn=turn)
            once = None if fallen is None else OncePerImage(fallen, rows, images)
            candidates = with_early_stopping(
                run, model, points, own, norm=norm, epsilon=epsilon, seed=(seed + number) % 2**32, fallen=once
            )
            number += 1
            with torch.no_grad():
                fooled = ~strictly_correct(model(candidates), own)
            keep_best_copies(found, attacked, candidates, fooled)
            if once is None:
                remaining &= ~any_copy(rows, fooled, len(images))
            else:
                found[once.succeeded] = once.adversarial[once.succeeded]
                remaining &= ~once.succeeded
    return found


def _run(attack: Aimed, active: nn.Module, *, points: Images, own: Labels, aims: Labels, turn: int) -> Images:
    return attack(active, points, own, aims, turn)


class OncePerImage:
    """`fallen` for copies of images: once one copy of an image is adversarial, no other copy of it is verified.

    `rows` is the image of each copy, `succeeded` whether one of an image is adversarial, and `adversarial` that copy.
    """

    def __init__(self, fallen: IsAdversarial, rows: Int[Tensor, " copies"], images: Images) -> None:
        self.fallen, self.rows, self.adversarial = fallen, rows, images.clone()
        self.succeeded = torch.zeros(len(images), dtype=torch.bool, device=rows.device)

    def __call__(self, copies: Tensor, candidates: Tensor) -> Tensor:
        """Whether an adversarial copy is known for the image of each of `copies`, once these candidates are judged."""
        images, waiting = self.rows[copies], torch.ones_like(copies, dtype=torch.bool)
        while (waiting := waiting & ~self.succeeded[images]).any():
            first = _first_copies(images, waiting)
            adversarial = self.fallen(images[first], candidates[first])
            self.succeeded[images[first]] = adversarial
            self.adversarial[images[first[adversarial]]] = candidates[first[adversarial]]
            waiting[first] = False
        return self.succeeded[images]


def _first_copies(images: Int[Tensor, " copies"], waiting: Bool[Tensor, " copies"]) -> Int[Tensor, " some"]:
    """The positions of the first waiting copy of each image."""
    positions = waiting.nonzero().flatten()
    _, which = np.unique(images[positions].cpu().numpy(), return_index=True)
    return positions[torch.from_numpy(which).to(positions.device)]


def any_copy(rows: Int[Tensor, " copies"], fooled: Bool[Tensor, " copies"], n: int) -> Bool[Tensor, " batch"]:
    """Whether any copy of each of `n` images fools the model."""
    found = torch.zeros(n, dtype=torch.bool, device=rows.device)
    found[rows[fooled]] = True
    return found


def keep_best_copies(
    found: Images, rows: Int[Tensor, " images"], candidates: Images, fooled: Bool[Tensor, " copies"]
) -> None:
    """Writes one candidate per image into `found[rows]`: the last copy that fools the model, else the last copy."""
    parts = list(zip(torch.split(candidates, len(rows)), torch.split(fooled, len(rows)), strict=True))
    for part, _ in parts:
        found[rows] = part
    for part, good in parts:
        found[rows[good]] = part[good]
