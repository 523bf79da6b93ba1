"""What a module says of many images, without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from odebench.dataset import Split
from odebench.numerics.precision import full_fp32
from odebench.numerics.shapes import Images, Logits


def predict(
    module: nn.Module,
    images: Images,
    *,
    device: str = "cpu",
    batch_size: int = 500,
) -> Logits:
    """The logits of many images, in batches and without gradients, as one tensor on the CPU."""
    with torch.no_grad(), full_fp32():
        parts: Sequence[Tensor] = [module(part.to(device)).cpu() for part in torch.split(images, batch_size)]
    return torch.cat(list(parts))


def accuracy(module: nn.Module, split: Split, *, device: str = "cpu") -> float:
    """The share in [0, 1] of a split's images that a module in evaluation mode classifies correctly."""
    return float((predict(module, split.images, device=device).argmax(1) == split.labels).float().mean())
