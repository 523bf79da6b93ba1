"""Projected ascent on the margin of a target class, towards the classes whose boundaries seem nearest."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from odebench.attack.early_stopping import IsAdversarial
from odebench.attack.multi_target import PASS_IMAGES, attack_targets, ranked_others
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.projection import project
from odebench.numerics.shapes import Images, Labels, Logits

MOMENTUM = 0.75
"""The share of the last direction that goes into the next."""
FIRST_STEP = {"linf": 0.5, "l2": 1.0}
"""The length of the first step in units of epsilon; the last is almost zero."""
COMPARED = 9
"""How many of the likeliest other classes are compared by the distance of their boundaries."""


Start = Callable[[Images, Labels, Labels, int], Images]
"""start(images, labels, aims, restart) -> points to begin at, called with the attack's random numbers."""


def pgd_margin(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    targets: int,
    restarts: int,
) -> Images:
    """The candidates of projected ascent on the margin (the target's logit minus the label's), with momentum and steps
    that shrink along a cosine: for each image the point of the largest margin on its last path.

    It goes towards each of `targets` other classes, that of the nearest boundary first, from the image itself, then
    `restarts` - 1 times from random points. No more targets are tried than there are other classes. Where few images
    remain, several targets share a pass.
    """

    def start(points: Images, own: Labels, aims: Labels, restart: int) -> Images:
        return random_points(points, norm=norm, epsilon=epsilon) if restart else points

    return ascend_targets(
        model,
        images,
        labels,
        nearest_others(model, images, labels, norm=norm, epsilon=epsilon, targets=targets),
        norm=norm,
        epsilon=epsilon,
        seed=seed,
        fallen=fallen,
        steps=steps,
        restarts=restarts,
        start=start,
    )


def ascend_targets(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    others: Int[Tensor, "batch targets"],
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None,
    steps: int,
    restarts: int,
    start: Start,
) -> Images:
    """The candidates of `ascend` towards each of the classes `others` of an image in turn, `restarts` times over."""

    def run(active: nn.Module, points: Images, own: Labels, aims: Labels, turn: int) -> Images:
        begin = start(points, own, aims, turn)
        return ascend(active, points, own, aims, norm=norm, epsilon=epsilon, steps=steps, start=begin)

    return attack_targets(
        run, model, images, labels, others, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen, turns=restarts
    )


def ascend(
    model: nn.Module,
    images: Images,
    labels: Labels,
    aims: Labels,
    *,
    norm: str,
    epsilon: float,
    steps: int,
    start: Images,
) -> Images:
    """The point of the largest margin of the classes `aims` on each path from `start`."""
    points, direction = start, torch.zeros_like(images)
    best, largest = start, images.new_full((len(images),), -torch.inf)
    for step in range(steps):
        points = points.detach().requires_grad_(True)
        margins = margin_of(model(points), labels, aims)
        (gradient,) = torch.autograd.grad(margins.sum(), points)
        with torch.no_grad():
            better = margins > largest
            largest = torch.where(better, margins, largest)
            best = torch.where(better[:, None, None, None], points, best)
            direction = MOMENTUM * direction + _normalised(_free(points, gradient), norm=norm)
            length = FIRST_STEP[norm] * epsilon * (1 + math.cos(math.pi * step / steps)) / 2
            step_taken = direction.sign() if norm == "linf" else _normalised(direction, norm=norm)
            points = project(images, points + length * step_taken, norm=norm, epsilon=epsilon)
    with torch.no_grad():
        better = margin_of(model(points), labels, aims) > largest
        found: Images = torch.where(better[:, None, None, None], points, best)
    return found.detach()


def margin_of(logits: Logits, labels: Labels, aims: Labels) -> Float[Tensor, " batch"]:
    """The logit of the class aimed at minus the label's."""
    margin: Tensor = (logits.gather(1, aims[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
    return margin


def random_points(images: Images, *, norm: str, epsilon: float) -> Images:
    """A random point of each ball and [0, 1], drawn on the CPU: uniform in linf, at a random distance in l2."""
    shift = torch.randn(images.shape, dtype=images.dtype)
    if norm == "linf":
        shift = 2 * torch.rand(images.shape, dtype=images.dtype) - 1
    else:
        shift = _normalised(shift, norm=norm) * torch.rand(len(images), 1, 1, 1, dtype=images.dtype)
    return project(images, images + epsilon * shift.to(images.device), norm=norm, epsilon=epsilon)


def nearest_others(
    model: WrappedModel, images: Images, labels: Labels, *, norm: str, epsilon: float, targets: int
) -> Int[Tensor, "batch targets"]:
    """The `targets` other classes whose boundaries seem nearest, the nearest first.

    The distance is that of a linear model (Moosavi-Dezfooli et al. 2016): what the margin lacks over what it gains in
    the ball and [0, 1] along its gradient. The likeliest COMPARED classes, or `targets` if that is more, are compared.
    """
    others = ranked_others(model, images, labels)[:, : max(COMPARED, targets)]
    if others.shape[1] == 1:
        return others
    rows = torch.arange(len(images), device=images.device).repeat(others.shape[1])
    aims, lengths = others.T.flatten(), []
    for some, aim in zip(torch.split(rows, PASS_IMAGES), torch.split(aims, PASS_IMAGES), strict=True):
        points = images[some].detach().requires_grad_(True)
        margins = margin_of(model(points), labels[some], aim)
        (gradient,) = torch.autograd.grad(margins.sum(), points)
        lengths.append(-margins.detach() / _gain(points.detach(), gradient, norm=norm, epsilon=epsilon))
    distances = torch.cat(lengths).view(others.shape[1], len(images)).T
    nearest: Tensor = others.gather(1, distances.argsort(dim=1, stable=True))[:, :targets]
    return nearest


def _gain(images: Images, gradient: Images, *, norm: str, epsilon: float) -> Float[Tensor, " batch"]:
    """How much a linear function of this gradient can grow in the ball of radius `epsilon` and [0, 1]; in l2 pixels
    that may not move are left out."""
    if norm == "l2":
        length: Tensor = _free(images, gradient).flatten(1).norm(dim=1)
        return epsilon * length.clamp_min(1e-20)
    room = torch.where(gradient > 0, 1 - images, images).clamp(0, epsilon)
    gain: Tensor = (gradient.abs() * room).flatten(1).sum(1).clamp_min(1e-20)
    return gain


def _free(points: Images, gradient: Images) -> Images:
    """The gradient without the pixels that it would move out of [0, 1]."""
    blocked = ((points <= 0) & (gradient < 0)) | ((points >= 1) & (gradient > 0))
    return gradient.masked_fill(blocked, 0.0)


def _normalised(shift: Images, *, norm: str) -> Images:
    """Each shift at l2 length one, or for linf at a mean size of one."""
    flat = shift.flatten(1)
    size = flat.norm(dim=1) if norm == "l2" else flat.abs().mean(1)
    return shift / size.clamp_min(1e-20)[:, None, None, None]
