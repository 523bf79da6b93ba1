"""Distances and projections in the norms of a threat model."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from odebench.numerics.shapes import Images

ROUNDING = 1e-6
"""A candidate this far beyond epsilon still counts as within the ball, because x + epsilon is rounded to fp32."""


def distance(images: Images, candidates: Images, *, norm: str) -> Float[Tensor, " batch"]:
    """The norm ("linf" or "l2") of each perturbation, in units of the image range [0, 1]."""
    flat = (candidates - images).flatten(1)
    found: Tensor = torch.linalg.vector_norm(flat, ord=2 if norm == "l2" else torch.inf, dim=1)
    return found


def project(images: Images, candidates: Images, *, norm: str, epsilon: float) -> Images:
    """The candidates projected onto the ball of radius `epsilon` around their images, then clipped to [0, 1]."""
    if norm == "linf":
        inside = torch.minimum(torch.maximum(candidates, images - epsilon), images + epsilon)
    else:
        shift = candidates - images
        length = distance(images, candidates, norm=norm).clamp_min(1e-12)
        inside = images + shift * (epsilon / length).clamp_max(1.0)[:, None, None, None]
    return inside.clamp(0.0, 1.0)


def grey_radius(norm: str, image_shape: tuple[int, ...]) -> float:
    """The smallest radius of a ball with plain grey around every image: 0.5 in linf, 0.5 sqrt(pixels) in l2."""
    return 0.5 if norm == "linf" else 0.5 * math.sqrt(math.prod(image_shape))
