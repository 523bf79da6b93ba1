"""Neural ODE image classifiers: stem, integration of a vector field over [0, T], head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odebench.model.layers import conv_stem, group_norm, pooled_head, pooled_stem
from odebench.model.solver import integrate
from odebench.numerics.shapes import Images, Logits
from odebench.protocol.spec import Solver

TimedField = Callable[[Tensor | float, Tensor], Tensor]
"""A function of time and state."""


class TimeConv(nn.Module):
    """A 3x3 convolution that gets the time as one more channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 1, channels, 3, 1, 1)

    def forward(
        self, t: Float[Tensor, ...], state: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        time = torch.ones_like(state[:, :1]) * t
        result: Tensor = self.conv(torch.cat([time, state], dim=1))
        return result

    def prepared(self, state: Float[Tensor, "batch channels height width"]) -> TimedField:
        """The same function for states of this shape, equal but for rounding: the time is a map that is added."""
        weight, bias = self.conv.weight, self.conv.bias
        from_time = nn.functional.conv2d(torch.ones_like(state[:1, :1]), weight[:, :1].to(state.dtype), padding=1)
        kernel = weight[:, 1:].contiguous()
        return lambda t, state: nn.functional.conv2d(state, kernel, bias, padding=1) + from_time * t


class ConvField(nn.Module):
    """ODENet's vector field: GN-ReLU-conv-GN-ReLU-conv-GN, time concatenated as a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (group_norm(channels) for _ in range(3))
        self.conv1, self.conv2 = TimeConv(channels), TimeConv(channels)

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiplies the last norm and the weights of the time by a factor k: the field f becomes k f(k t, state)."""
        for tensor in (self.norm3.weight, self.norm3.bias, *(each.conv.weight[:, :1] for each in self.time_convs)):
            tensor *= factor

    @property
    def time_convs(self) -> tuple[TimeConv, TimeConv]:
        """The convolutions that get the time."""
        return self.conv1, self.conv2

    def forward(
        self, t: Float[Tensor, ...], state: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        out = self.conv1(t, torch.relu(self.norm1(state)))
        out = self.conv2(t, torch.relu(self.norm2(out)))
        result: Tensor = self.norm3(out)
        return result

    def prepared(self, state: Float[Tensor, "batch channels height width"]) -> TimedField:
        """The same function for states of this shape, equal but for rounding, in less time."""
        conv1, conv2 = self.conv1.prepared(state), self.conv2.prepared(state)

        def field(t: Tensor | float, state: Tensor) -> Tensor:
            out = conv1(t, torch.relu(self.norm1(state)))
            result: Tensor = self.norm3(conv2(t, torch.relu(self.norm2(out))))
            return result

        return field


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
