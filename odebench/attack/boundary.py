"""Candidates from beyond the decision boundary, for models whose logits lead away from it (after Brendel and Bethge
2019, whose attack also begins at an image of another class and follows the boundary)."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from odebench.attack.early_stopping import IsAdversarial, strictly_correct
from odebench.attack.margin import margin_of
from odebench.attack.smoothed import scale
from odebench.attack.spsa import Estimated
from odebench.attack.wrapped_model import WrappedModel
from odebench.errors import UsageError
from odebench.model.classifier import Classifier
from odebench.numerics.projection import distance, project
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels

MOST_IMAGES, FEW_IMAGES = 2000, 200
"""How many of the train images are starting points at most, the first of them; the second for a model that is asked
image by image, or several times over."""
BATCH = 100
"""The most points in one call of the model."""
SHARES = (1.0, 0.5, 0.25, 0.1)
"""How far to go from the boundary towards the nearest point of its tangent: the first of these that stays beyond."""
BEYOND = 1.02
"""How much further than the tangent a step goes."""
DIRECTIONS = 64
"""Along how many directions a gradient is estimated, or as many as there are values."""
NEAR = 0.9
"""Where a point that lies near the boundary is asked first on its way to the image."""


_known: WeakKeyDictionary[Classifier, tuple[Images, Int[Tensor, " train"]]] = WeakKeyDictionary()


def boundary(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    starts: int,
    halvings: int,
    drop_far: bool,
    differences: bool,
    train_images: Images | None,
) -> Images:
    """For each image the nearest point found beyond the decision boundary, projected onto the ball.

    It begins at the nearest train image that the model takes for another class, `starts` times over, each time with
    another class. Each of `steps` finds the boundary on the way to the image by labels alone, which is halved
    `halvings` times: with 14 so close that no thin layer of other slopes hides it. There it takes the gradient of the
    margin, and goes to the point of the tangent plane that is nearest to the image. So slopes that lead away from the
    boundary, which mislead attacks that climb from the image, do not matter. With `drop_far` points are dropped that
    stay further away than those did which came into the ball on honest models.
    With `differences` the gradient is estimated from logits epsilon / 4 around, along DIRECTIONS random directions
    drawn by `seed`: then false gradients do not matter either. Raises UsageError without train images.
    """
    if train_images is None or not len(train_images):
        raise UsageError("boundary needs train images to begin at, and the data set has none")
    model = model.fp32
    count = FEW_IMAGES if model.alone or model.passes > 1 else MOST_IMAGES
    train = train_images[:count].to(images.device)
    if (known := _known.get(model.classifier)) is None or known[0] is not train_images or len(known[1]) != len(train):
        known = _known[model.classifier] = (train_images, _asked(model, train))
    answers = known[1]
    sloped = model
    if differences:
        sloped = Estimated(
            model, directions=min(DIRECTIONS, images.shape[1:].numel()), reach=scale(images, norm, epsilon)
        )
    apart = torch.cdist(images.flatten(1), train.flatten(1)).masked_fill(answers == labels[:, None], torch.inf)
    begins: list[tuple[Tensor, Tensor]] = []
    for _ in range(starts):
        nearest = apart.argmin(1)
        rows = apart.gather(1, nearest[:, None]).squeeze(1).isfinite().nonzero().flatten()
        if not len(rows):
            break
        begins.append((rows, train[nearest[rows]]))
        apart = apart.masked_fill(answers == answers[nearest][:, None], torch.inf)
    found, remaining = images.clone(), torch.ones_like(labels, dtype=torch.bool)
    if not begins:
        return found
    # From all starts at once: far fewer calls than one start after the other.
    every = torch.cat([rows for rows, _ in begins])
    with seeded(seed):
        ends = from_beyond(
            sloped,
            images[every],
            labels[every],
            torch.cat([points for _, points in begins]),
            norm=norm,
            epsilon=epsilon,
            steps=steps,
            halvings=halvings,
            drop_far=drop_far,
        )
    for (began, _), ended in zip(begins, torch.split(ends, [len(rows) for rows, _ in begins]), strict=True):
        rows, candidates = began[remaining[began]], ended[remaining[began]]
        if not len(rows):
            continue
        nearer = distance(images[rows], candidates, norm=norm) < distance(images[rows], found[rows], norm=norm)
        first = (found[rows] == images[rows]).flatten(1).all(1)
        found[rows] = torch.where((nearer | first)[:, None, None, None], candidates, found[rows])
        if fallen is not None:
            fell = fallen(rows, project(images[rows], candidates, norm=norm, epsilon=epsilon))
            found[rows[fell]] = candidates[fell]
            remaining[rows[fell]] = False
    return project(images, found, norm=norm, epsilon=epsilon)


def from_beyond(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    points: Images,
    *,
    norm: str,
    epsilon: float,
    steps: int,
    halvings: int,
    drop_far: bool,
) -> Images:
    """For each image the nearest point found that the model takes for another class, from one that it takes for
    another: `points`. An image is left alone once its point lies within epsilon, or, with `drop_far`, too far away to
    come there: beyond _within_reach, and not twice as near as a step before."""
    best, before = points.clone(), torch.full((len(images),), torch.inf, device=images.device)
    for step in range(steps):
        away = distance(images, best, norm=norm) / epsilon
        comes = (away <= _within_reach(step)) | (away < before / 2) | (not drop_far)
        far = ((away > 1) & comes).nonzero().flatten()
        before = away
        if not len(far):
            break
        some, own = images[far], labels[far]
        edge = _towards(model, some, own, points[far], first=NEAR if step else 0.5, halvings=halvings)
        best[far] = torch.where(_nearer(some, edge, best[far], norm=norm), edge, best[far])
        if step == steps - 1:
            break
        nearest = _tangent_point(model, some, own, edge, norm=norm)
        points[far] = _step(model, some, own, edge, nearest)
    return best


def _within_reach(step: int) -> float:
    """How many epsilons away a point may lie after so many steps, to be followed further: those that came into the ball
    on validation images lay nearer. The first edge tells nothing."""
    return 1 + 10 / step**2 if step > 1 else torch.inf


def _asked(model: WrappedModel, train: Images) -> Int[Tensor, " train"]:
    """What the model takes the train images for, whichever call comes first. It is asked once, and no image's passes
    count that: those of a part are those of the whole."""
    asked = WrappedModel(model.classifier, passes=model.passes, alone=model.alone)
    with seeded(0), torch.no_grad():
        return torch.cat([asked(part).argmax(1) for part in torch.split(train, BATCH)])


def _wrong(model: WrappedModel, points: Images, labels: Labels) -> Bool[Tensor, " batch"]:
    with torch.no_grad():
        return ~strictly_correct(torch.cat([model(part) for part in torch.split(points, BATCH)]), labels)


def _towards(
    model: WrappedModel, images: Images, labels: Labels, points: Images, *, first: float, halvings: int
) -> Images:
    """The point nearest to each image, on the straight way from it to its point, that is found to be wrong. The first
    point asked lies at the share `first` of that way."""
    right, wrong = images, points
    for halving in range(halvings):
        share = 0.5 if halving else first
        middle = right + share * (wrong - right)
        beyond = _wrong(model, middle, labels)[:, None, None, None]
        right, wrong = torch.where(beyond, right, middle), torch.where(beyond, middle, wrong)
    return wrong


def _nearer(images: Images, one: Images, other: Images, *, norm: str) -> Bool[Tensor, "batch 1 1 1"]:
    nearer = distance(images, one, norm=norm) < distance(images, other, norm=norm)
    return nearer[:, None, None, None]


def _tangent_point(model: WrappedModel, images: Images, labels: Labels, edge: Images, *, norm: str) -> Images:
    """The point in [0, 1] nearest to each image on the plane through `edge` along which the margin does not change."""
    slope = torch.cat(
        [_slope(model, *part) for part in zip(torch.split(edge, BATCH), torch.split(labels, BATCH), strict=True)]
    )
    flat = slope.flatten(1)
    size = flat.norm(dim=1).clamp_min(1e-20)[:, None, None, None]
    way = slope.sign() if norm == "linf" else slope / size
    needed = (flat * (edge - images).flatten(1)).sum(1)
    least, most = needed.new_zeros(len(images)), needed.new_full((len(images),), flat.shape[1] ** 0.5)
    for _ in range(25):
        length = (least + most) / 2
        moved = (images + length[:, None, None, None] * way).clamp(0, 1) - images
        reaches = (flat * moved.flatten(1)).sum(1) >= needed
        least, most = torch.where(reaches, least, length), torch.where(reaches, length, most)
    return (images + BEYOND * most[:, None, None, None] * way).clamp(0, 1)


def _slope(model: WrappedModel, edge: Images, labels: Labels) -> Images:
    """The gradient of the margin of each label over the likeliest other class."""
    asked = edge.detach().requires_grad_(True)
    logits = model(asked)
    others = logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)
    return torch.autograd.grad(margin_of(logits, labels, others).sum(), asked)[0]


def _step(model: WrappedModel, images: Images, labels: Labels, edge: Images, aim: Images) -> Images:
    """From `edge` as far towards `aim` as is still wrong, by the first of SHARES; else `edge`."""
    points, waiting = edge.clone(), torch.arange(len(edge), device=edge.device)
    for share in SHARES:
        if not len(waiting):
            break
        begin = edge[waiting]
        tried = begin + share * (aim[waiting] - begin)
        tried = (tried + (BEYOND - 1) * (tried - images[waiting])).clamp(0, 1)
        wrong = _wrong(model, tried, labels[waiting])
        points[waiting[wrong]] = tried[wrong]
        waiting = waiting[~wrong]
    return points
