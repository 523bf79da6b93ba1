"""Candidates that begin on a substitute, a net distilled from the model under attack (Papernot et al. 2017)."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from odebench.attack.early_stopping import IsAdversarial
from odebench.attack.margin import ascend, ascend_targets, margin_of, nearest_others, random_points
from odebench.attack.wrapped_model import WrappedModel
from odebench.errors import UsageError
from odebench.model.classifier import Classifier
from odebench.model.losses import distillation_loss
from odebench.numerics.projection import project
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels

MOST_IMAGES = 2000
"""How many of the train images the substitute is distilled on at most, the first of them."""
BATCH = 100
TEMPERATURE = 4.0
LEARNING_RATE = 5e-3
CHANNELS, UNITS = (16, 32), 64


_distilled: WeakKeyDictionary[Classifier, dict[tuple[str, float, int], WrappedModel]] = WeakKeyDictionary()


def substitute(
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
    epochs: int,
    train_images: Images | None,
) -> Images:
    """The candidates of ascent on the margin that begins where the same ascent on a substitute ended, towards each of
    the `targets` classes whose boundaries seem nearest to the substitute.

    The substitute never sees the model's gradient: it is distilled on the model's answers. That happens once for a
    model, norm and epsilon, from the same random numbers whatever the images, so that no letter depends on a chunk.
    Raises UsageError without train images.
    """
    if train_images is None:
        raise UsageError("substitute needs train images to distil the model on, and the data set has none")
    known = _distilled.setdefault(model.classifier, {})
    key = (norm, epsilon, epochs)
    if key not in known:
        known[key] = distil(model, train_images[:MOST_IMAGES], norm=norm, epsilon=epsilon, epochs=epochs)
    stand_in = known[key]
    aims = nearest_others(stand_in, images, labels, norm=norm, epsilon=epsilon, targets=targets)

    def start(points: Images, own: Labels, aims: Labels, restart: int) -> Images:
        return ascend(stand_in, points, own, aims, norm=norm, epsilon=epsilon, steps=steps, start=points)

    return ascend_targets(
        model,
        images,
        labels,
        aims,
        norm=norm,
        epsilon=epsilon,
        seed=seed,
        fallen=fallen,
        steps=steps,
        restarts=1,
        start=start,
    )


class StandIn(nn.Sequential):
    """Two convolutions and two layers on all that they see: quick to distil, and smooth."""

    def __init__(self, image_shape: tuple[int, ...], n_classes: int) -> None:
        first, second = CHANNELS
        side = [-(-size // 2) for size in image_shape[1:]]
        super().__init__(
            nn.Conv2d(image_shape[0], first, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(second * side[0] * side[1], UNITS),
            nn.GELU(),
            nn.Linear(UNITS, n_classes),
        )


def distil(model: WrappedModel, images: Images, *, norm: str, epsilon: float, epochs: int) -> WrappedModel:
    """A net distilled from the answers of `model` at these images and at perturbed ones.

    In every epoch the model is asked at random points of the balls and, after the first third, at points that ascend
    the substitute's own loss: there the attack will look. The loss is Hinton's, the model's label for a label.
    """
    device = model.classifier.device
    # Its own wrapper: the numbers that a randomised model draws must not hang on which call came first.
    asked = WrappedModel(model.classifier, passes=model.passes, alone=model.alone)
    with seeded(0):
        net = StandIn(tuple(images.shape[1:]), model.n_classes).to(device)
        optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=LEARNING_RATE, total_steps=epochs * -(-len(images) // BATCH)
        )
        clean = [answers(asked, part.to(device)) for part in torch.split(images, BATCH)]
        scale = torch.cat(clean).std().clamp_min(1e-12) / TEMPERATURE
        for epoch in range(epochs):
            for index, part in enumerate(torch.split(images, BATCH)):
                part = part.to(device)
                points = random_points(part, norm=norm, epsilon=epsilon)
                if epoch >= epochs // 3:
                    points = _ascended(net, part, points, norm=norm, epsilon=epsilon)
                told = torch.cat([clean[index], answers(asked, points)]) / scale
                loss = distillation_loss(
                    net(torch.cat([part, points])), told.argmax(1), told, temperature=TEMPERATURE, weight=0.9
                )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
    model.forward_images += asked.forward_images
    return WrappedModel(Classifier(net.eval().requires_grad_(False), n_classes=model.n_classes, device=device))


def answers(model: WrappedModel, images: Images) -> Tensor:
    """The logits, without a gradient."""
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits


def _ascended(net: nn.Module, images: Images, points: Images, *, norm: str, epsilon: float) -> Images:
    """One step of length epsilon from `points` towards the substitute's second class."""
    points = points.detach().requires_grad_(True)
    logits = net(points)
    ranked = logits.topk(2, dim=1).indices
    (gradient,) = torch.autograd.grad(margin_of(logits, ranked[:, 0], ranked[:, 1]).sum(), points)
    with torch.no_grad():
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-20)[:, None, None, None]
        shift = gradient.sign() if norm == "linf" else gradient / length
        return project(images, points + epsilon * shift, norm=norm, epsilon=epsilon)
