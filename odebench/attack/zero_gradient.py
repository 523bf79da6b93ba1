"""Gradients at the corners of clamp, clip and relu, where torch says exactly zero though the model is not flat.

torch gives clamp, clip and hardtanh the gradient zero at both ends of their range, and relu and clamp_min at zero. Half
of the pixels of digits lie exactly at 0, and attacks project onto 0 and 1: behind a clip a gradient attack would not
see these pixels. Such a pixel takes the gradient of a point nearby instead. Where no pixel has a gradient of exactly
zero nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from odebench.numerics.shapes import Images

REACH = 0.25
"""How far a point nearby lies, in units of epsilon."""


def nearby(images: Images, zero: Bool[Tensor, "batch channel height width"], *, norm: str, epsilon: float) -> Images:
    """The images with their pixels in `zero` moved by a quarter of epsilon, within [0, 1].

    A pixel moves towards 1/2: from a border of the range, where most of these pixels lie, this is inside. In l2 the
    quarter is the length of the whole move of an image.
    """
    count = zero.flatten(1).sum(1).clamp_min(1).to(images.dtype)
    length = torch.full_like(count, REACH * epsilon) if norm == "linf" else REACH * epsilon / count.sqrt()
    direction = torch.where(images <= 0.5, 1.0, -1.0).to(images.dtype)
    return torch.where(zero, images + direction * length[:, None, None, None], images).clamp(0, 1)


def completed(
    gradient: Images,
    images: Images,
    cotangent: Float[Tensor, "batch classes"],
    ask: Callable[[Images], Tensor],
    *,
    norm: str,
    epsilon: float,
) -> tuple[Images, int]:
    """The gradient with its exactly zero pixels taken from points nearby, and how many images were asked for that.

    `ask` maps images to logits, `cotangent` is the gradient of the loss in the logits of `images`. An image whose loss
    does not depend on its logits is left alone, as no point nearby would tell more.
    """
    zero = gradient == 0
    rows = (zero.flatten(1).any(1) & (cotangent != 0).any(1)).nonzero().flatten()
    if not len(rows):
        return gradient, 0
    points = nearby(images[rows], zero[rows], norm=norm, epsilon=epsilon).requires_grad_()
    with torch.enable_grad():
        logits = ask(points.clone())  # a model may change its input in place
        if not logits.requires_grad:
            return gradient, len(rows)
        (there,) = torch.autograd.grad(logits, points, cotangent[rows], allow_unused=True, materialize_grads=True)
    there = torch.nan_to_num(there, nan=0.0, posinf=0.0, neginf=0.0)
    return gradient.index_put((rows,), torch.where(zero[rows], there, gradient[rows])), len(rows)
