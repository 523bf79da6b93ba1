"""A small pre-activation residual network (He et al. 2016): the teacher, and the discrete baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odebench.model.layers import group_norm, pooled_head
from odebench.numerics.shapes import Images, Logits


class ResidualBlock(nn.Module):
    """GN-ReLU-conv-GN-ReLU-conv, and a 1x1 convolution on the shortcut where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(channels_in), group_norm(channels)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.past: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.past = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(
        self, state: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        out = self.conv1(torch.relu(self.norm1(state)))
        out = self.conv2(torch.relu(self.norm2(out)))
        result: Tensor = self.past(state) + out
        return result


class ResNet(nn.Module):
    """A 3x3 convolution, then residual blocks of the given `widths` and `strides`, then a pooled head."""

    def __init__(
        self, *, image_shape: Sequence[int], n_classes: int, widths: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], widths[0], 3, 1, 1, bias=False)
        widths_in = [widths[0], *widths[:-1]]
        self.blocks = nn.Sequential(*(ResidualBlock(*sizes) for sizes in zip(widths_in, widths, strides, strict=True)))
        self.head = pooled_head(widths[-1], n_classes)

    def forward(self, images: Images) -> Logits:
        """The logits."""
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits
