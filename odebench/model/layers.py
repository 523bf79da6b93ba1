"""The layers around the ODE of ODENet (Chen et al. 2018, MNIST example): stem and head."""

from __future__ import annotations

import math

from torch import nn

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
