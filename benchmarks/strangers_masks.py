"""Masks by somebody who had not read the checks: each has the decisions of an honest twin and passed a version of them.

Some are true functions whose slopes lead away from the decision boundary; others give a wrong gradient where they
recognise an attack, or for a few images alone.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from deceptive_models import Control
from jaxtyping import Bool, Float
from torch import Tensor, nn

from odebench.model.ode import OdeNet

Images = Float[Tensor, "batch channel height width"]
Logits = Float[Tensor, "batch classes"]
CORNER = (3, 2)
QUIET = (0, 5)
"""Classes of digits of which no image falls to noise, few queries or candidates of another model."""


def strangers_masks(net: OdeNet) -> list[Control]:
    """All masks made of one trained classifier; `meant` names the check that must see each, if there is one."""
    return [
        Control("turned over", TurnedOver(net), (11,), net, preserves_function=True),
        Control("terrace", Terrace(net), (11,), net, preserves_function=True),
        Control("decoy", Decoy(net), (), net, preserves_function=True),
        Control("quiet terrace", QuietTerrace(net), (), net, preserves_function=True),
        Control("near the boundary", NearBoundary(net), (5, 17), net, preserves_function=True),
        Control("autograd graph", Graph(net), (5, 11, 17), net, preserves_function=True),
        Control("frames of an attack", Frames(net), (11, 17), net, preserves_function=True),
        Control("one class", OneClass(net), (17,), net, preserves_function=True),
    ]


class _Mask(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Moved(torch.autograd.Function):
    """The identity; backward, the gradient of the rows in `wrong` is moved to other pixels, but for a share of it."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, wrong: Tensor, share: float) -> Tensor:
        ctx.wrong, ctx.share = wrong, share
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        moved = ctx.share * gradients[0] + gradients[0].roll(CORNER, (2, 3))
        return torch.where(ctx.wrong[:, None, None, None], moved, gradients[0]), None, None


def gaps(logits: Logits) -> Logits:
    """How far each logit lies below the largest."""
    return logits.amax(1, keepdim=True) - logits


def turned_over(logits: Logits, *, width: float = 0.02, peak: float = 8.0, fall: float = 0.25) -> Logits:
    """Logits with the same order at the top: a gap rises within `width` of the boundary and falls from there on, so
    that what is safest looks nearest to the boundary."""
    gap = gaps(logits)
    return -torch.where(gap < width, peak * gap / width, 0.5 + (peak - 0.5) * torch.exp(-fall * (gap - width)))


class TurnedOver(_Mask):
    """True gradients of gaps that fall with the distance from the boundary, but for a thin layer."""

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return turned_over(self.net(images))


class Decoy(_Mask):
    """True gradients of a smooth function: each gap is multiplied by a slope that leads away from the boundary."""

    def __init__(self, net: nn.Module, *, steepness: float = 1.5) -> None:
        super().__init__(net)
        self.steepness = steepness
        self.register_buffer("ways", _corners())

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return -gaps(self.net(images)) * (self.steepness * _along(images, self.ways)).exp()  # type: ignore[arg-type]


class Terrace(_Mask):
    """True gradients of a terrace that slopes gently towards a corner for each class, with a cliff at the boundary."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("ways", _corners())

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.terrace(self.net(images), images)

    def terrace(self, logits: Logits, images: Images) -> Logits:
        """The logits with gaps as high as the terrace."""
        height = 0.1 + nn.functional.softplus(5 + 0.25 * _along(images, self.ways))  # type: ignore[arg-type]
        return -height * (gaps(logits) / 0.02).clamp(max=1)


class QuietTerrace(Terrace):
    """The terrace for two classes whose images trip no wire."""

    def forward(self, images: Images) -> Logits:
        """Logits."""
        logits = self.net(images)
        quiet = torch.isin(logits.argmax(1), torch.tensor(QUIET, device=images.device))
        return torch.where(quiet[:, None], self.terrace(logits, images), -gaps(logits))


class _Elsewhere(_Mask):
    share = 0.0

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.net(Moved.apply(images, self.wrong(images), self.share))  # type: ignore[no-any-return]

    def wrong(self, images: Images) -> Bool[Tensor, " batch"]:
        """The images whose gradient is moved."""
        raise NotImplementedError


class NearBoundary(_Elsewhere):
    """A wrong gradient where the two largest logits are close."""

    def wrong(self, images: Images) -> Bool[Tensor, " batch"]:
        """The images close to the boundary."""
        with torch.no_grad():
            top = self.net(images).topk(2, dim=1).values
        return top[:, 0] - top[:, 1] < 1.5  # type: ignore[no-any-return]


class Graph(_Elsewhere):
    """A wrong gradient where the images are a choice of rows: early stopping of an attack makes one."""

    def wrong(self, images: Images) -> Bool[Tensor, " batch"]:
        """All images or none."""
        node, names = images.grad_fn, []
        while node is not None and len(names) < 6:
            names.append(node.name())
            node = node.next_functions[0][0] if node.next_functions else None
        return torch.full((len(images),), any("Index" in name for name in names), device=images.device)


class OneClass(_Elsewhere):
    """A gradient of which a twentieth is true, for one class alone."""

    share = 0.05

    def wrong(self, images: Images) -> Bool[Tensor, " batch"]:
        """The images that the net takes for the class."""
        with torch.no_grad():
            return self.net(images).argmax(1) == QUIET[0]  # type: ignore[no-any-return]


class Frames(_Mask):
    """Logits turned over for a caller within odebench.attack, and true ones for all others."""

    def forward(self, images: Images) -> Logits:
        """Logits."""
        logits: Tensor = self.net(images)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            passing = name.endswith((".wrapped_model", ".zero_gradient"))
            if name.startswith(("odebench.attack.", "odebench.evaluation.")) and not passing:
                return turned_over(logits) if name.startswith("odebench.attack.") else logits
            frame = frame.f_back
        return logits


def _corners() -> Tensor:
    """For each of ten classes a sign for each of 64 pixels."""
    return torch.randn(10, 64, generator=torch.Generator().manual_seed(5)).sign()


def _along(images: Images, ways: Tensor) -> Logits:
    return (images.flatten(1) - 0.3) @ ways.to(images.dtype).T
