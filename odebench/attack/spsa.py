"""Gradients estimated from logits alone, for modules whose own gradient is not that of their function."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.autoattack import apgd_ce, apgd_targeted
from odebench.attack.early_stopping import Fallen, strictly_correct
from odebench.attack.wrapped_model import WrappedModel

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]

PASS_IMAGES = 1000
"""Up to so many points are asked about in one pass."""
REACH = 0.02
"""Half the length of a difference along one pixel, as a share of epsilon in linf; the same length in l2."""


def spsa(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen | None = None,
    steps: int,
    targets: int,
    directions: int,
) -> Images:
    """Auto-PGD along gradients estimated by simultaneous perturbation (Spall 1992; Uesato et al. 2018).

    On the cross-entropy in twice the `steps`, then on what stands towards each of the `targets` likeliest others. A
    gradient is the mean of central differences of the logits along `directions` random directions, orthonormal ones
    (Choromanski et al. 2018): with as many as there are pixels and channels it is the whole gradient.
    """
    pixels = images[0].numel()
    reach = REACH * epsilon if norm == "linf" else REACH * epsilon / pixels**0.5
    # In fp32 whatever the precision: differences of bf16 logits are noise.
    asked = Estimated(model.exact, directions=min(directions, pixels), reach=reach)
    given: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "seed": seed}
    down = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def verified(rows: Tensor, candidates: Tensor) -> Tensor:
        fell = cast(Fallen, fallen)(rows, candidates)
        down[rows[fell]] = True
        return fell

    asks = None if fallen is None else verified
    found = apgd_ce(asked, images, labels, fallen=asks, steps=2 * steps, **given)
    rows = (~down).nonzero().flatten()
    if len(rows):
        ask = None if asks is None else lambda some, candidates: verified(rows[some], candidates)
        aimed = apgd_targeted(asked, images[rows], labels[rows], fallen=ask, steps=steps, targets=targets, **given)
        with torch.no_grad():
            only_first = ~strictly_correct(model(found[rows]), labels[rows])
            only_first &= strictly_correct(model(aimed), labels[rows])
        found[rows] = torch.where(only_first[:, None, None, None], found[rows], aimed)
    return found


class Estimated(WrappedModel):
    """A surface with the same logits, whose gradient is estimated from them.

    Directions have entries of about 1, and differences go `reach` times along each to both sides.
    """

    def __init__(self, inner: WrappedModel, *, directions: int, reach: float) -> None:
        super().__init__(inner.classifier)
        self.inner, self.directions, self.reach = inner, directions, reach
        self.failures, self.provisional = inner.failures, inner.provisional

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits, with an estimated gradient in `images`."""
        logits: Tensor = _Differences.apply(images, self)
        return logits


class _Differences(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, surface: Estimated) -> Tensor:
        ctx.save_for_backward(images)
        ctx.surface = surface
        logits: Tensor = surface.inner(images)
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (images,), surface = ctx.saved_tensors, ctx.surface
        pixels, count = images[0].numel(), surface.directions
        frame, _ = torch.linalg.qr(torch.randn(pixels, count))
        directions = frame.T.reshape(count, 1, *images.shape[1:]).to(images.device) * pixels**0.5
        estimate = torch.zeros_like(images)
        at_once = max(1, PASS_IMAGES // (2 * len(images)))
        with torch.no_grad():
            for some in torch.split(directions, at_once):
                points = torch.cat([images + surface.reach * some, images - surface.reach * some])
                logits = surface.inner(points.flatten(0, 1)).unflatten(0, (2, len(some), len(images)))
                slopes = ((logits[0] - logits[1]) * gradients[0]).sum(2) / (2 * surface.reach)
                estimate += (slopes[:, :, None, None, None] * some).sum(0)
        # Orthonormal directions times the root of the number of pixels: the squared length is that number.
        return estimate / pixels, None
