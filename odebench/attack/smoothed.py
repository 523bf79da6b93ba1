"""Ascent along a smoothed gradient, for models whose own gradient says nothing at the scale of epsilon."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from odebench.attack.early_stopping import IsAdversarial, strictly_correct
from odebench.attack.margin import ascend_targets, nearest_others
from odebench.attack.spsa import Estimated
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels, Logits

REACH = 0.25
"""How far around a point it is asked, as a share of epsilon: along each pixel in linf, in length in l2."""


def smoothed(
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
    draws: int,
    directions: int,
) -> Images:
    """The candidates of projected ascent on the margin along gradients of the scale of epsilon / 4, towards each of
    the `targets` other classes whose boundaries seem nearest by them.

    The first gradient is the mean of the model's own at `draws` points drawn around. The images that remain are
    attacked again along central differences of the logits in `directions` random directions, for a model whose own
    gradient leads nowhere.
    """
    reach = scale(images, norm, epsilon)
    remaining = torch.ones(len(images), dtype=torch.bool, device=images.device)
    found = images.clone()
    for seen in (
        Smoothed(model, draws=draws, reach=reach),
        Estimated(model.fp32, directions=min(directions, images[0].numel()), reach=reach),
    ):
        rows = remaining.nonzero().flatten()
        if not len(rows):
            break

        def verified(some: Tensor, candidates: Tensor, rows: Tensor = rows) -> Tensor:
            adversarial = cast(IsAdversarial, fallen)(rows[some], candidates)
            remaining[rows[some[adversarial]]] = False
            return adversarial

        with seeded(seed):  # both kinds of gradient draw points
            others = nearest_others(seen, images[rows], labels[rows], norm=norm, epsilon=epsilon, targets=targets)
        candidates = ascend_targets(
            seen,
            images[rows],
            labels[rows],
            others,
            norm=norm,
            epsilon=epsilon,
            seed=seed,
            fallen=None if fallen is None else verified,
            steps=steps,
            restarts=1,
            start=lambda points, own, aims, restart: points,
        )
        with torch.no_grad():
            only_before = ~strictly_correct(model(found[rows]), labels[rows])
            only_before &= strictly_correct(model(candidates), labels[rows])
        found[rows] = torch.where(only_before[:, None, None, None], found[rows], candidates)
    return found


def scale(images: Images, norm: str, epsilon: float) -> float:
    """How far a pixel moves where a model is asked epsilon / 4 around."""
    return REACH * epsilon if norm == "linf" else REACH * epsilon / images.shape[1:].numel() ** 0.5


class Smoothed(WrappedModel):
    """A model with the logits of `inner`, whose gradient is the mean of that at `draws` points around, in [0, 1].

    A point lies `reach` times a normal random number away along each pixel.
    """

    def __init__(self, inner: WrappedModel, *, draws: int, reach: float) -> None:
        super().__init__(inner.classifier)
        self.inner, self.draws, self.reach = inner, draws, reach
        self.failures, self.provisional = inner.failures, inner.provisional

    def forward(self, images: Images) -> Logits:
        """The logits, with a smoothed gradient in `images`."""
        logits: Tensor = _MeanGradient.apply(images, self)
        return logits


class _MeanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, model: Smoothed) -> Tensor:
        ctx.save_for_backward(images)
        ctx.model = model
        logits: Tensor = model.inner(images)
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (images,), model = ctx.saved_tensors, ctx.model
        total = torch.zeros_like(images)
        for _ in range(model.draws):
            shift = model.reach * torch.randn(images.shape, dtype=images.dtype).to(images.device)
            points = (images + shift).clamp(0, 1).requires_grad_(True)
            with torch.enable_grad():
                logits = model.inner(points)
            total += torch.autograd.grad(logits, points, gradients[0])[0]
        return total / model.draws, None
