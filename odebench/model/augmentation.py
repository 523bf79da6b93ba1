"""Random changes of training images that keep their class."""

from __future__ import annotations

import torch
from torch.nn import functional

from odebench.numerics.shapes import Images


def augment(images: Images, augmentation: str, generator: torch.Generator) -> Images:
    """The images unchanged ("none"), or each mirrored at random and shifted by up to an eighth of its side
    ("flip-crop")."""
    if augmentation == "none":
        return images
    n, _, height, width = images.shape
    flip = torch.rand(n, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    pad = min(height, width) // 8
    padded = functional.pad(images, (pad, pad, pad, pad))
    top, left = (torch.randint(0, 2 * pad + 1, (n, 1), generator=generator) for _ in range(2))
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = (left + torch.arange(width))[:, None, None, :]
    return padded[torch.arange(n)[:, None, None, None], torch.arange(images.shape[1])[:, None, None], rows, columns]
