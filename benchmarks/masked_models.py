"""Masks: models with the decisions of an honest twin, or nearly so, that hide them from attacks which follow gradients.

Each is of a kind that an attacker who knows odebench would try. `masks` makes one of each from one trained classifier,
and `clips` the honest relatives whose gradient torch gives as zero where an image touches the ends of its range.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from deceptive_models import Control
from jaxtyping import Float
from torch import Tensor, nn

from odebench.model.ode import OdeNet

Images = Float[Tensor, "batch channel height width"]
Logits = Float[Tensor, "batch classes"]


def masks(net: OdeNet) -> list[Control]:
    """All masks made of one trained classifier; `meant` names the check that must see each."""
    return [
        Control("memory of images", Memory(net), (19,), net, preserves_function=False),
        Control("large batches", LargeBatches(net), (17,), net, preserves_function=True),
        Control("after many calls", ManyCalls(net), (17,), net, preserves_function=True),
        Control("gradient mode", GradientMode(net), (17, 19), net, preserves_function=True),
        Control("off the grid", OffGrid(net), (17,), net, preserves_function=True),
        Control("fp64 path", DoublePath(net), (17,), net, preserves_function=True),
        Control("logit ripple", Ripple(net), (20,), net, preserves_function=True),
        Control("rounded logits", RoundedLogits(net), (20,), net, preserves_function=True),
        Control("staircase input", Staircase(net), (20,), Staircase(net, slope=1.0), preserves_function=False),
        Control("reversed gradient", Reversed(net), (17,), net, preserves_function=True),
        Control("small pixels turned", SmallPixels(net), (17,), net, preserves_function=True),
        Control("seeds itself", SeedsItself(net), (), net, preserves_function=True),
    ]


def clips(net: nn.Module) -> dict[str, Clipped | Rectified]:
    """Honest models that clip their input, each nearly the function of `net`."""
    return {
        "clip to 0 and 1": Clipped(net, 0.0),
        "clip to 1e-4": Clipped(net, 1e-4),
        "clip to 1/255": Clipped(net, 1 / 255),
        "clamp_min 0": Rectified(net),
    }


class _Mask(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def _with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """`value`, with the gradient of `other`."""
    return other + (value - other).detach()


class Reversed(_Mask):
    """The logits of the net with the gradient of their negative."""

    def forward(self, images: Images) -> Logits:
        """Logits."""
        logits: Tensor = self.net(images)
        return _with_gradient_of(logits, -logits) if self.hides(images) else logits

    def hides(self, images: Images) -> bool:
        """Whether the gradient is false for this batch."""
        return True


class LargeBatches(Reversed):
    """Shows its gradient to batches of up to 32 images alone."""

    def hides(self, images: Images) -> bool:
        """Whether the gradient is false for this batch."""
        return len(images) > 32


class ManyCalls(Reversed):
    """Shows its gradient for the first 60 calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.calls = 0

    def hides(self, images: Images) -> bool:
        """Whether the gradient is false for this batch."""
        self.calls += 1
        return self.calls > 60


class OffGrid(Reversed):
    """Shows its gradient at images of sixteen grey levels alone, as those of digits are: not where attacks walk."""

    def hides(self, images: Images) -> bool:
        """Whether the gradient is false for this batch."""
        levels = images.detach() * 16
        return bool((levels - levels.round()).abs().max() > 1e-2)


class SmallPixelsScaled(torch.autograd.Function):
    """The identity. Backward, the gradient of the smallest pixels, which hold `share` of its square, is multiplied by
    `factor`."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, share: float, factor: float) -> Tensor:
        ctx.share, ctx.factor = share, factor
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        flat = gradients[0].flatten(1)
        squares, order = flat.square().sort(dim=1)
        small = squares.cumsum(1) <= ctx.share * squares.sum(1, keepdim=True)
        turned = torch.zeros_like(small).scatter(1, order, small)
        return torch.where(turned, ctx.factor * flat, flat).view_as(gradients[0]), None, None


class SmallPixels(_Mask):
    """The cosine with the true gradient is .97, while attacks in linf step the wrong way in many pixels."""

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.net(SmallPixelsScaled.apply(images, 0.06, -1e-3))  # type: ignore[no-any-return]


class GradientMode(_Mask):
    """Other logits where gradients are on: those of blurred images."""

    def forward(self, images: Images) -> Logits:
        """Logits."""
        if not torch.is_grad_enabled():
            return self.net(images)  # type: ignore[no-any-return]
        return self.net(nn.functional.avg_pool2d(images, 5, 1, 2)) * -1.0  # type: ignore[no-any-return]


class DoublePath(_Mask):
    """Negative logits in fp64, so that differences there agree with a gradient that is reversed in fp32."""

    def forward(self, images: Images) -> Logits:
        """Logits."""
        logits: Tensor = self.net(images)
        return -logits if images.dtype == torch.float64 else _with_gradient_of(logits, -logits)


class Memory(_Mask):
    """Remembers the images of its first calls and answers with the label of the nearest of these ever after."""

    def __init__(self, net: nn.Module, *, images: int = 500) -> None:
        super().__init__(net)
        self.images, self.known, self.labels = images, None, None

    def forward(self, images: Images) -> Logits:
        """Logits."""
        logits: Tensor = self.net(images)
        flat = images.detach().flatten(1)
        if self.known is None:
            self.known, self.labels = flat.clone(), logits.detach().argmax(1)
        distance = torch.cdist(flat.float(), self.known.float())
        nearest = distance.argmin(1)
        near = distance.gather(1, nearest[:, None])[:, 0] < 0.25 * flat.shape[1] ** 0.5
        if len(self.known) < self.images and not near.all():
            self.known = torch.cat([self.known, flat[~near].to(self.known.dtype)])
            self.labels = torch.cat([self.labels, logits.detach().argmax(1)[~near]])
        remembered = nn.functional.one_hot(self.labels[nearest], logits.shape[1]).to(logits.dtype)
        return torch.where(near[:, None], logits + 100 * remembered, logits)


class Ripple(_Mask):
    """A ripple of tiny wavelength on every logit: a true gradient that leads nowhere, and hardly another decision."""

    def __init__(self, net: nn.Module, *, height: float = 1e-2, wavelength: float = 1e-4) -> None:
        super().__init__(net)
        self.height, self.wavelength = height, wavelength

    def forward(self, images: Images) -> Logits:
        """Logits."""
        logits: Tensor = self.net(images)
        generator = torch.Generator().manual_seed(1)
        pixels = images[0].numel()
        ways = torch.randn(pixels, logits.shape[1], generator=generator).to(images)
        phases = images.flatten(1) @ ways * (2 * torch.pi / self.wavelength / pixels**0.5)
        return logits + self.height * logits.detach().abs().amax(1, keepdim=True) * phases.sin()


class RoundedLogits(_Mask):
    """Logits rounded to steps, plus a gentle slope that leads the wrong way."""

    def __init__(self, net: nn.Module, *, steps: float = 20.0, slope: float = 1e-3) -> None:
        super().__init__(net)
        self.steps, self.slope = steps, slope

    def forward(self, images: Images) -> Logits:
        """Logits."""
        logits: Tensor = self.net(images)
        return (logits * self.steps).round() / self.steps - self.slope * logits


class Staircase(_Mask):
    """Pixels rounded to steps of 1/64 with a slope on every step that falls where the staircase rises."""

    def __init__(self, net: nn.Module, *, levels: int = 64, slope: float = -0.2) -> None:
        super().__init__(net)
        self.levels, self.slope = levels, slope

    def forward(self, images: Images) -> Logits:
        """Logits."""
        stairs = ((images * self.levels).round() / self.levels).detach()
        return self.net(stairs + self.slope * (images - stairs))  # type: ignore[no-any-return]


class SeedsItself(_Mask):
    """Seeds all global generators in its forward pass, which would blind attacks that draw random numbers."""

    def forward(self, images: Images) -> Logits:
        """Logits."""
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        return self.net(images)  # type: ignore[no-any-return]


class Clipped(_Mask):
    """Clips its input to [edge, 1 - edge]; honest."""

    def __init__(self, net: nn.Module, edge: float) -> None:
        super().__init__(net)
        self.edge = edge

    def inside(self, images: Images) -> Images:
        """What the net sees."""
        return images.clamp(self.edge, 1 - self.edge)

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.net(self.inside(images))  # type: ignore[no-any-return]


class Rectified(_Mask):
    """Clips its input from below alone; honest."""

    def inside(self, images: Images) -> Images:
        """What the net sees."""
        return images.clamp_min(0)

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.net(self.inside(images))  # type: ignore[no-any-return]


class Unclipped(nn.Module):
    """A model that clips its input, as an attacker differentiates it who knows: the gradient goes through the clip."""

    def __init__(self, clipped: Clipped | Rectified) -> None:
        super().__init__()
        self.clipped = clipped

    def forward(self, images: Images) -> Logits:
        """Logits."""
        seen = images + (self.clipped.inside(images) - images).detach()
        return self.clipped.net(seen)  # type: ignore[no-any-return]
