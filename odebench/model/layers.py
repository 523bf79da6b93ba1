"""The parts of ODENet (Chen et al. 2018, MNIST example): stem, vector field, head."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

POOLED_SIDE = 16
"""The stemless models see images average-pooled to at most this many pixels per side."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in at most 32 groups of at least two channels; ODENet has 32 groups of its 64 channels."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 2)), channels)


def conv_stem(image_channels: int, channels: int, side: int) -> nn.Sequential:
    """A learned stem: ODENet's three convolutions to a quarter of the side, or below 28 two to half of it."""
    small = side < 28
    layers: list[nn.Module] = [nn.Conv2d(image_channels, channels, 3, padding=1 if small else 0)]
    for _ in range(1 if small else 2):
        layers += [group_norm(channels), nn.ReLU(), nn.Conv2d(channels, channels, 4, 2, 1)]
    return nn.Sequential(*layers)


def pooled_stem(image_channels: int, channels: int, side: int) -> nn.Sequential:
    """A stem that learns no downsampling: average pooling to 16x16 at most, then one 1x1 convolution."""
    lift = nn.Conv2d(image_channels, channels, 1)
    if side <= POOLED_SIDE:
        return nn.Sequential(lift)
    return nn.Sequential(nn.AdaptiveAvgPool2d(POOLED_SIDE), lift)


def pooled_head(channels: int, n_classes: int) -> nn.Sequential:
    """The head: GN-ReLU, global average pooling, one linear layer."""
    return nn.Sequential(
        group_norm(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)
    )


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
