"""Neural ODE image classifiers: stem, integration of a vector field over [0, T], head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from odebench.model.layers import ConvField, conv_stem, pooled_head, pooled_stem
from odebench.model.solver import integrate
from odebench.numerics.shapes import Images, Logits
from odebench.protocol.spec import Solver


class OdeNet(nn.Module):
    """An ODE classifier with the stem, field and head of ODENet (Chen et al. 2018), which odebench integrates.

    `stem` is "conv" for learned downsampling, or "pool" for average pooling and one 1x1 convolution. `initial_scale`
    multiplies what the field's last norm and time weights begin with: a field over [0, 1] that begins k times as large
    is the field over [0, k] in units of its horizon.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        n_classes: int,
        channels: int,
        stem: Literal["conv", "pool"],
        horizon: float,
        solver: Solver,
        initial_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.stem = _stem(stem)(image_shape[0], channels, min(image_shape[1:]))
        self.field = ConvField(channels)
        if initial_scale != 1:
            self.field.scale(initial_scale)
        self.head = pooled_head(channels, n_classes)
        self.horizon = horizon
        self.solver = solver

    def forward(self, images: Images) -> Logits:
        """The logits; NaN where the solver failed, so that the failure shows even if the module is wrapped."""
        solution = integrate(self.field, self.stem(images), horizon=self.horizon, solver=self.solver)
        logits: Tensor = self.head(solution.state)
        return logits.masked_fill(solution.failed[:, None], torch.nan) if solution.failed.any() else logits


class StemHead(nn.Module):
    """OdeNet without its ODE block, to see how far the stem and the head get alone."""

    def __init__(
        self, *, image_shape: Sequence[int], n_classes: int, channels: int, stem: Literal["conv", "pool"]
    ) -> None:
        super().__init__()
        self.stem = _stem(stem)(image_shape[0], channels, min(image_shape[1:]))
        self.head = pooled_head(channels, n_classes)

    def forward(self, images: Images) -> Logits:
        """The logits."""
        logits: Tensor = self.head(self.stem(images))
        return logits


def _stem(name: str) -> Callable[[int, int, int], nn.Module]:
    stems = {"conv": conv_stem, "pool": pooled_stem}
    if name not in stems:
        raise ValueError(f"stem must be conv or pool, not {name!r}")
    return stems[name]
